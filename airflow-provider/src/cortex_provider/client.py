"""Cortex over HTTP, as a run sees it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx

from cortex_provider import __version__
from cortex_provider.errors import ApprovalPending, GrantRefused, NotUnderstood, Refused, Unavailable

#: An answer is at most this large, in bytes.
ANSWER_MAX = 1 << 20
#: How long Cortex may hold a question for a grant's status, in seconds.
STATUS_WAIT_MAX = 20
SECRETS = ("access_key_id", "secret_access_key", "session_token", "token")
DECIDED = ("approved", "denied", "expired")


@dataclass(frozen=True)
class Ask:
    """What a run asks for."""

    policy: str
    reason: str | None = None
    #: A shorter life than the policy's, in seconds.
    ttl_seconds: int | None = None

    def body(self, claim: Mapping[str, Any] | None) -> dict[str, Any]:
        """The request's JSON. All targets of the policy, always: an approval is for one exact request."""
        everything = {"policy": self.policy, "reason": self.reason, "ttl_seconds": self.ttl_seconds, "run": claim}
        return {name: value for name, value in everything.items() if value is not None}


@dataclass(frozen=True)
class Credential:
    """One target's credential. Its secrets do not show in its `repr`."""

    policy: str
    target: str
    issuance_id: str
    expires_at: datetime
    #: By name: `access_key_id`, `secret_access_key` and `session_token` for AWS, `token` for the others.
    secrets: Mapping[str, str] = field(repr=False, hash=False)
    #: What goes with it and is no secret: `account`, `region`, `role`, `project`, `host` and so on.
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def remaining(self, now: datetime | None = None) -> float:
        """How long it still lives, in seconds."""
        return (self.expires_at - (now or datetime.now(timezone.utc))).total_seconds()


@dataclass(frozen=True)
class Bundle:
    """Cortex's answer: each target's credential, or why there is none."""

    policy: str
    credentials: Mapping[str, Credential | Refused | Unavailable]


@dataclass(frozen=True)
class GrantStatus:
    """Where a request for an approval stands."""

    grant_id: str
    policy: str
    #: `requested`, `approved`, `denied` or `expired`.
    status: str
    decided_at: str | None = None
    decided_by: tuple[str, ...] = ()
    comment: str | None = None

    @property
    def decided(self) -> bool:
        """Whether waiting longer changes nothing."""
        return self.status in DECIDED

    def sentence(self) -> str:
        """What became of it: who, when and why."""
        what = {"requested": "waits for approval", "expired": "expired before enough people approved"}
        by = f" by {', '.join(self.decided_by)}" if self.decided_by else ""
        at = f" at {self.decided_at}" if self.decided_at else ""
        why = f": {self.comment}" if self.comment else ""
        return (
            f"grant {self.grant_id} for policy {self.policy} {what.get(self.status, f'was {self.status}')}{by}{at}{why}"
        )


class BrokerClient:
    """Calls Cortex. Every call has a deadline, every answer a limit, and nothing is followed elsewhere."""

    def __init__(self, url: str, timeout: float = 30, ca_file: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._ca_file = ca_file

    def credentials(self, token: str, ask: Ask, claim: Mapping[str, Any] | None = None) -> Bundle:
        """Exchanges an ID token for the credentials of a policy; `claim` names the run for a service identity.

        Raises `Refused`, `ApprovalPending`, `Unavailable` or `NotUnderstood`.
        """
        request = _Call("POST", f"{self._url}/v1/credentials", token, json=ask.body(claim))
        return _bundle(ask.policy, self._send(request))

    def grant_status(self, grant_id: str, grant_handle: str, wait: int = 0) -> GrantStatus:
        """Asks where a grant stands; Cortex holds the question up to `wait` seconds while nothing changes.

        Raises `Refused`, `Unavailable` or `NotUnderstood`.
        """
        return _grant_status(self._send(self._status_call(grant_id, grant_handle, wait)))

    async def agrant_status(self, grant_id: str, grant_handle: str, wait: int = 0) -> GrantStatus:
        """The same for an event loop."""
        call = self._status_call(grant_id, grant_handle, wait)
        try:
            async with httpx.AsyncClient(**self._options(call)) as http, http.stream(**call.arguments()) as answer:
                body = b""
                async for part in answer.aiter_bytes():
                    body = _append(body, part)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from None
        return _grant_status(_read(answer, body))

    def ready(self) -> float | None:
        """Asks whether Cortex serves, and how far this clock is ahead of Cortex's, in seconds (None: not said).

        Raises `Unavailable` or `NotUnderstood`.
        """
        call = _Call("GET", f"{self._url}/readyz", None)
        try:
            with httpx.Client(**self._options(call)) as http:
                answer = http.request(**call.arguments())
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from None
        if answer.status_code != httpx.codes.OK:
            raise Unavailable(f"Cortex at {self._url} is not ready: HTTP {answer.status_code}")
        return _clock_ahead(answer.headers.get("date"))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Kept, because reading the certificates takes longer than the call; connections are not, because they must
        # not be shared over a fork.
        return httpx.create_ssl_context(verify=self._ca_file or True)

    def _status_call(self, grant_id: str, grant_handle: str, wait: int) -> _Call:
        wait = max(0, min(wait, STATUS_WAIT_MAX))
        path = f"{self._url}/v1/grants/{quote(grant_id, safe='')}/status"
        return _Call("GET", path, grant_handle, query={"wait": str(wait)}, patience=wait)

    def _options(self, call: _Call) -> dict[str, Any]:
        timeout = httpx.Timeout(self._timeout + call.patience, connect=min(5.0, self._timeout))
        return {"timeout": timeout, "verify": self._tls, "follow_redirects": False}

    def _send(self, call: _Call) -> dict[str, Any]:
        try:
            with httpx.Client(**self._options(call)) as http, http.stream(**call.arguments()) as answer:
                body = b""
                for part in answer.iter_bytes():
                    body = _append(body, part)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from None
        return _read(answer, body)


@dataclass(frozen=True)
class _Call:
    method: str
    url: str
    bearer: str | None = field(repr=False)
    json: Mapping[str, Any] | None = None
    query: Mapping[str, str] | None = None
    #: How much longer than usual the answer may take, in seconds.
    patience: int = 0

    def arguments(self) -> dict[str, Any]:
        headers = {"Accept": "application/json", "User-Agent": f"airflow-provider-cortex/{__version__}"}
        if self.bearer:
            headers["Authorization"] = f"Bearer {self.bearer}"
        return {
            "method": self.method,
            "url": self.url,
            "headers": headers,
            "json": self.json,
            "params": self.query,
        }


def _append(body: bytes, part: bytes) -> bytes:
    if len(body) + len(part) > ANSWER_MAX:
        raise NotUnderstood(f"the answer is larger than {ANSWER_MAX} bytes")
    return body + part


def _unreachable(url: str, error: httpx.HTTPError) -> Unavailable:
    # httpx's messages name hosts and limits; the request, and with it the token, is in none of them.
    return Unavailable(f"Cortex at {url} cannot be reached: {type(error).__name__}: {error}")


def _read(answer: httpx.Response, body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if answer.status_code == httpx.codes.OK and isinstance(value, dict):
        return value
    retry_after = answer.headers.get("retry-after")
    if isinstance(value, dict) and isinstance(value.get("error"), str):
        raise _refusal(value, retry_after)
    if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise Unavailable(f"Cortex answered HTTP {answer.status_code}", _seconds(retry_after))
    if isinstance(value, dict) and isinstance(value.get("detail"), str) and 400 <= answer.status_code < 500:
        # Routes beside those for credentials answer with problem details (RFC 9457).
        raise Refused("refused", value["detail"][:2000])
    raise NotUnderstood(f"Cortex answered HTTP {answer.status_code} with something that is not of its protocol")


def _seconds(retry_after: str | None) -> float | None:
    """When to come back; the other form of the header, a date, is not used by Cortex."""
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdecimal() else None


def _refusal(value: Mapping[str, Any], retry_after: str | None = None) -> Refused | ApprovalPending | Unavailable:
    code, description = str(value["error"])[:64], str(value.get("error_description") or value["error"])[:2000]
    if code == "authorization_pending":
        handle, interval = value.get("grant_handle"), value.get("interval")
        interval = interval if isinstance(interval, int) and 1 <= interval <= 300 else 5
        return ApprovalPending(
            description, str(value.get("grant_id")), handle if isinstance(handle, str) else None, interval
        )
    if code in ("temporarily_unavailable", "slow_down"):
        return Unavailable(description, _seconds(retry_after))
    if code == "access_denied":
        return GrantRefused(description)
    decision = value.get("decision_id")
    return Refused(code, description, decision if isinstance(decision, str) else None)


def _bundle(policy: str, value: Mapping[str, Any]) -> Bundle:
    entries = value.get("credentials")
    if not isinstance(entries, dict) or not entries or value.get("policy") != policy:
        raise NotUnderstood("Cortex answered without credentials of the policy that was asked for")
    return Bundle(policy, {str(target): _entry(policy, str(target), entry) for target, entry in entries.items()})


def _entry(policy: str, target: str, entry: object) -> Credential | Refused | Unavailable:
    if isinstance(entry, dict) and entry.get("status") == "failed" and isinstance(entry.get("error"), str):
        refusal = _refusal(entry)
        return Unavailable(str(refusal)) if isinstance(refusal, ApprovalPending) else refusal
    try:
        if not isinstance(entry, dict):
            raise ValueError
        body = dict(entry["credential"])
        secrets = {name: body.pop(name) for name in SECRETS if name in body}
        if entry["status"] != "issued" or not secrets or not all(isinstance(s, str) for s in secrets.values()):
            raise ValueError
        return Credential(policy, target, str(entry["issuance_id"]), parse_time(entry["expires_at"]), secrets, body)
    except (KeyError, TypeError, ValueError):
        raise NotUnderstood(f"Cortex answered with an entry for {target} that is not of its protocol") from None


def _grant_status(value: Mapping[str, Any]) -> GrantStatus:
    status = value.get("status")
    if status not in ("requested", *DECIDED):
        raise NotUnderstood("Cortex answered with a grant's status that is not of its protocol")
    by, comment = value.get("decided_by") or [], value.get("comment")
    return GrantStatus(
        grant_id=str(value.get("grant_id")),
        policy=str(value.get("policy")),
        status=status,
        decided_at=str(value["decided_at"]) if value.get("decided_at") else None,
        decided_by=tuple(str(person) for person in by) if isinstance(by, list) else (str(by),),
        comment=str(comment)[:2000] if comment else None,
    )


def parse_time(text: str) -> datetime:
    """An RFC 3339 time; raises `ValueError`. Python 3.10 reads neither `Z` nor nanoseconds by itself."""
    whole, dot, rest = text.removesuffix("Z").partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :]
    moment = datetime.fromisoformat(f"{whole}{dot}{digits[:6].ljust(6, '0') if dot else ''}{zone}")
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment


def _clock_ahead(date: str | None) -> float | None:
    try:
        theirs = datetime.strptime(date or "", "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return (datetime.now(timezone.utc) - theirs).total_seconds()
