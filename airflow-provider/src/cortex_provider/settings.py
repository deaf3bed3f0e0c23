"""The backend's configuration: keyword arguments as Airflow hands them over, checked once and typed from then on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from cortex_provider import compat
from cortex_provider.errors import NotConfigured

BACKEND = "cortex_provider.secrets.CortexBackend"

#: As Cortex names policies, and how it names their targets.
POLICY = re.compile(r"(?!.*--)[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z")
TARGET = re.compile(r"[a-z][a-z0-9]{0,31}\Z")
IDENTITIES = ("airflow", "file", "client_credentials", "development")
#: What each source of tokens cannot do without.
NEEDS = {
    "airflow": (),
    "file": ("token_file",),
    "client_credentials": ("token_url", "client_id", "client_secret_file"),
    "development": ("issuer_url",),
}


@dataclass(frozen=True)
class ConnectionRule:
    """What one connection id stands for: a policy, one of its targets, and what the connection holds besides."""

    policy: str
    #: None: the policy's only target.
    target: str | None = None
    #: Why, for the approver; a param of the run takes precedence.
    reason: str | None = None
    #: A shorter life than the policy's, in seconds.
    ttl_seconds: int | None = None
    host: str | None = None
    schema: str | None = None
    port: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, conn_id: str, value: object) -> ConnectionRule:
        """Reads one entry of `connections`; raises `NotConfigured`, naming what is wrong."""
        place = f"connections[{conn_id!r}]"
        if not isinstance(value, Mapping):
            raise NotConfigured(f'{place} is not an object; write {{"policy": "…", "target": "…"}}')
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise NotConfigured(f"{place} has unknown keys {unknown}; it takes {sorted(known)}")
        rule = cls(**{"policy": "", **value})
        rule.check(place)
        return rule

    def check(self, place: str) -> None:
        """Raises `NotConfigured` where a value cannot be."""
        if not isinstance(self.policy, str) or not POLICY.match(self.policy):
            raise NotConfigured(f"{place}: {self.policy!r} is not the name of a policy, such as finance-publish")
        if self.target is not None and not (isinstance(self.target, str) and TARGET.match(self.target)):
            raise NotConfigured(f"{place}: {self.target!r} is not a target, such as aws or bigquery")
        if self.ttl_seconds is not None and not _whole(self.ttl_seconds, 60, 43_200):
            raise NotConfigured(f"{place}: ttl_seconds is a whole number from 60 to 43200")
        if not isinstance(self.extra, Mapping):
            raise NotConfigured(f"{place}: extra is not an object")


@dataclass(frozen=True)
class Settings:
    """How this process reaches Cortex, and which connection ids are Cortex's."""

    #: Cortex's address: https, or http to this machine.
    url: str
    #: The audience that Cortex expects in ID tokens.
    audience: str = "cortex"
    #: Connection ids that begin with this are Cortex's; empty: none but those of `connections`.
    connections_prefix: str = "cortex_"
    connections: Mapping[str, ConnectionRule] = field(default_factory=dict, hash=False)
    #: Where the ID token comes from: one of `IDENTITIES`.
    identity: str = "airflow"
    #: How long a lookup waits for people to approve, in seconds; 0: it fails at once.
    wait_for_approval: int = 0
    #: The param of a run that holds the reason.
    reason_param: str = "cortex_reason"
    #: How long one call may take, in seconds.
    timeout: int = 30
    #: Certificates that vouch for Cortex, PEM; None: those that the machine trusts.
    ca_file: str | None = None
    #: identity=file: a projected service-account token.
    token_file: str | None = None
    #: identity=client_credentials: the identity provider's token endpoint, and who this service is.
    token_url: str | None = None
    client_id: str | None = None
    client_secret_file: str | None = None
    scope: str | None = None
    #: identity=development: the issuer that `cortex dev` prints.
    issuer_url: str | None = None
    #: A secrets backend for everything that is not Cortex's.
    fallback: str | None = None
    fallback_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, kwargs: Mapping[str, Any]) -> Settings:
        """Reads the backend's keyword arguments; raises `NotConfigured`, naming what is wrong."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(kwargs) - known):
            raise NotConfigured(f"CortexBackend does not take {unknown}; it takes {sorted(known)}")
        values = dict(kwargs)
        if not values.get("url"):
            raise NotConfigured("CortexBackend needs url, the address of Cortex")
        for name in ("connections", "fallback_kwargs"):
            values[name] = _mapping(name, values.get(name))
        for name, most in (("wait_for_approval", 86_400), ("timeout", 300)):
            if name in values:
                values[name] = _number(name, values[name], most)
        values["connections"] = {i: ConnectionRule.parse(i, rule) for i, rule in values["connections"].items()}
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type.startswith("str") and value is not None and not isinstance(value, str):
                raise NotConfigured(f"CortexBackend: {f.name} is not a text")
        if self.identity not in IDENTITIES:
            raise NotConfigured(f"CortexBackend: identity is one of {', '.join(IDENTITIES)}")
        if missing := [name for name in NEEDS[self.identity] if not getattr(self, name)]:
            raise NotConfigured(f"CortexBackend: identity={self.identity} needs {' and '.join(missing)}")
        for name in ("url", "token_url", "issuer_url"):
            if (url := getattr(self, name)) is not None:
                check_url(name, url)
        if self.issuer_url and not is_loopback(self.issuer_url):
            raise NotConfigured("CortexBackend: issuer_url is for `cortex dev` on this machine only")
        if self.timeout < 1:
            raise NotConfigured("CortexBackend: timeout is at least 1 second")

    def rule(self, conn_id: str) -> ConnectionRule | None:
        """What `conn_id` stands for; None where it is not Cortex's.

        `cortex_<policy>` or `cortex_<policy>__<target>`, the policy's hyphens written as underscores. No policy has
        two hyphens in a row, so the first `__` ends it. Raises `NotConfigured` for an id that begins with the prefix
        and names no policy: it is Cortex's all the same, and nobody else may answer it.
        """
        if conn_id in self.connections:
            return self.connections[conn_id]
        if not self.connections_prefix or not conn_id.startswith(self.connections_prefix):
            return None
        name, named, target = conn_id.removeprefix(self.connections_prefix).partition("__")
        rule = ConnectionRule(policy=name.replace("_", "-"), target=target if named else None)
        prefix = self.connections_prefix
        rule.check(f"connection id {conn_id!r} (write {prefix}<policy> or {prefix}<policy>__<target>)")
        return rule


def configured() -> Settings:
    """The settings of the secrets backend that Airflow's configuration names; raises `NotConfigured` without one."""
    for section, prefix in (("workers", "secrets_backend"), ("secrets", "backend")):
        if compat.configuration(section, prefix) == BACKEND:
            raw = compat.configuration(section, f"{prefix}_kwargs") or "{}"
            return Settings.parse(_mapping(f"[{section}] {prefix}_kwargs", raw))
    raise NotConfigured(f"Airflow's configuration does not name {BACKEND} as [workers] secrets_backend")


def check_url(name: str, url: str) -> None:
    """Raises `NotConfigured` unless `url` is https, or http to this machine."""
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise NotConfigured(f"{name} is not an address such as https://cortex.example.com")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
        raise NotConfigured(f"{name} has to be https; http is for addresses of this machine only")


def is_loopback(url: str) -> bool:
    """Whether the address is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _mapping(name: str, value: object) -> dict[str, Any]:
    """An object, also one that came as text: Airflow reads single keys from the environment as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise NotConfigured(f"{name} is not JSON") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise NotConfigured(f"{name} is not an object")
    return dict(value)


def _number(name: str, value: object, most: int) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise NotConfigured(f"CortexBackend: {name} is a whole number of seconds") from None
    if not 0 <= number <= most:
        raise NotConfigured(f"CortexBackend: {name} is at most {most} seconds")
    return number


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
