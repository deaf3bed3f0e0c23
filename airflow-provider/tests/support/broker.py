"""A broker on loopback that speaks the wire format of Cortex, and tells what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "header.payload.signature"
GRANT = "0190aaaa-0000-7000-8000-000000000001"
HANDLE = "cortex_grant_handle"


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Broker:
    """Answers `POST /v1/credentials` with `answer`, and the rest by path with `routes`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.sent: list[Answer] = []
        self.answer: Callable[[Request], Answer] = lambda request: issued(request.json()["policy"])
        self.routes: dict[str, Callable[[Request], Answer]] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner._serve(self)

            def do_POST(self) -> None:
                owner._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def exchanges(self) -> list[Request]:
        return [request for request in self.requests if request.path == "/v1/credentials"]

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length") or 0)
        parts = urlsplit(handler.path)
        sent = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.command, parts.path, parse_qs(parts.query), sent, handler.rfile.read(length))
        self.requests.append(request)
        route = self.answer if parts.path == "/v1/credentials" else self.routes.get(parts.path)
        answer = route(request) if route else Answer(404, {"status": 404, "title": "Not Found", "detail": "not here"})
        self.sent.append(answer)
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        handler.send_response_only(answer.status)
        headers = {"Date": handler.date_time_string(), "Content-Length": str(len(content)), **answer.headers}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


_count = iter(range(1, 1_000_000))


def entry(target: str, life: float = 900) -> dict[str, Any]:
    """One target of the answer, with secrets that are different each time."""
    number = next(_count)
    credential: dict[str, Any] = {
        "aws": {
            "access_key_id": f"ASIATEST{number:08}",
            "secret_access_key": f"secret-access-key-{number}",
            "session_token": f"session-token-{number}",
            "region": "eu-west-3",
            "account": "123456789012",
            "role_arn": "arn:aws:iam::123456789012:role/test",
        },
        "bigquery": {"token": f"google-token-{number}", "project": "acme-finance", "token_type": "Bearer"},
        "snowflake": {
            "token": f"snowflake-token-{number}",
            "account": "acme-prod",
            "user": "FINANCE_SVC",
            "role": "FINANCE_PUBLISH",
            "authenticator": "oauth",
            "host": "acme-prod.snowflakecomputing.com",
        },
        "api": {"token": f"api-token-{number}", "audience": "https://ledger.acme.example", "scope": "postings:read"},
    }[target]
    ends = datetime.now(timezone.utc) + timedelta(seconds=life)
    return {
        "status": "issued",
        "issuance_id": f"0190ffff-0000-7000-8000-{number:012}",
        "expires_at": ends.isoformat().replace("+00:00", "Z"),
        "lease_handle": f"cortex_lease_{number}",
        "credential": credential,
    }


def failed(error: str, description: str, **more: Any) -> dict[str, Any]:
    return {"status": "failed", "error": error, "error_description": description, **more}


def issued(policy: str, *targets: str, life: float = 900, **more: Any) -> Answer:
    """The answer with these targets (all four, if none is named), and `more` entries."""
    names = targets or (() if more else ("aws", "bigquery", "snowflake", "api"))
    entries = {**{name: entry(name, life) for name in names}, **more}
    body = {"principal": "airflow:prod:x", "policy": policy, "policy_digest": "sha256:00", "credentials": entries}
    return Answer(200, body)


def refused(error: str = "invalid_target", description: str = "no such policy", status: int = 400) -> Answer:
    decision = {"decision_id": "0190dddd-0000-7000-8000-000000000001"} if error == "invalid_target" else {}
    return Answer(status, {"error": error, "error_description": description, **decision})


def pending() -> Answer:
    description = f"grant {GRANT} waits for approval; ask again"
    body = {"error": "authorization_pending", "error_description": description, "grant_id": GRANT, "interval": 1}
    return Answer(400, {**body, "grant_handle": HANDLE})


def grant_status(status: str, **more: Any) -> Answer:
    return Answer(200, {"grant_id": GRANT, "policy": "erase", "status": status, **more})
