"""A token endpoint inside the task's process, for clients that renew by OAuth: google-auth and SnowflakeHook.

It listens on 127.0.0.1 and answers whoever shows a renewal's key, which only the connections of this process hold.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs

from cortex_provider.errors import CortexError, Unavailable
from cortex_provider.renewal import registry

log = logging.getLogger(__name__)

#: A request's body is at most this large, in bytes.
BODY_MAX = 16 << 10
#: How many requests are answered at once; more wait.
AT_ONCE = 16
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 the name of a kind, not a secret


class _Endpoint(BaseHTTPRequestHandler):
    """`GET /subject` gives google-auth what it shows at `POST /token`; SnowflakeHook shows its key there at once."""

    server_version = "cortex"
    sys_version = ""
    #: How long a client may take to send its request, in seconds.
    timeout = 10
    turns: ClassVar[threading.BoundedSemaphore] = threading.BoundedSemaphore(AT_ONCE)

    def do_GET(self) -> None:
        """The key again, as a subject token."""
        key = self._bearer()
        if self.path != "/subject" or key is None or registry.find(key) is None:
            return self._answer(HTTPStatus.UNAUTHORIZED, {"error": "invalid_token"})
        self._send(HTTPStatus.OK, "text/plain", key.encode())

    def do_POST(self) -> None:
        """The credential of the renewal whose key is shown (RFC 8693, or RFC 6749 section 4.4)."""
        renewal = self._renewal()
        if renewal is None:
            return self._answer(HTTPStatus.UNAUTHORIZED, {"error": "invalid_client"})
        with self.turns:
            try:
                credential = renewal.credential()
            except CortexError as error:
                return self._refuse(renewal, error)
        self._answer(
            HTTPStatus.OK,
            {
                "access_token": credential.secrets["token"],
                "issued_token_type": ACCESS_TOKEN,
                "token_type": "Bearer",
                "expires_in": max(0, int(credential.remaining())),
            },
        )

    def _renewal(self) -> registry.Renewal | None:
        form = self._form()
        if self.path != "/token" or form is None:
            return None
        if form.get("grant_type") == EXCHANGE:
            key = form.get("subject_token")
        elif form.get("grant_type") == "client_credentials":
            key = self._basic_password()
        else:
            key = None
        renewal = registry.find(key) if key else None
        # AWS keys are no token; their renewals are for the session factory.
        return renewal if renewal and renewal.target != "aws" else None

    def _refuse(self, renewal: registry.Renewal, error: CortexError) -> None:
        # The clients show a status at best, so the sentence goes to the task log from here.
        log.error("Cortex: policy %s, target %s: not renewed: %s", renewal.ask.policy, renewal.target, error)
        if isinstance(error, Unavailable):
            body = {"error": "temporarily_unavailable", "error_description": str(error)}
            return self._answer(HTTPStatus.SERVICE_UNAVAILABLE, body)
        self._answer(HTTPStatus.BAD_REQUEST, {"error": "invalid_grant", "error_description": str(error)})

    def _form(self) -> dict[str, str] | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_MAX:
            return None
        body = self.rfile.read(int(length)).decode("ascii", errors="replace")
        try:
            values = parse_qs(body, max_num_fields=32)
        except ValueError:
            return None
        return {name: value[0] for name, value in values.items() if len(value) == 1}

    def _bearer(self) -> str | None:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        return value if kind.lower() == "bearer" else None

    def _basic_password(self) -> str | None:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        try:
            pair = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return pair.partition(":")[2] if kind.lower() == "basic" else None

    def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what matters is logged where it happens."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; the standard library would print it with its traceback."""
        log.debug("Cortex: a request to the token endpoint of this process broke off", exc_info=True)


_lock = threading.Lock()
_running: tuple[int, _Server] | None = None


def url(path: str) -> str:
    """The endpoint's address; starts it, once for each process."""
    global _running
    with _lock:
        if _running is None or _running[0] != os.getpid():
            server = _Server(("127.0.0.1", 0), _Endpoint)
            threading.Thread(target=server.serve_forever, name="cortex-token-endpoint", daemon=True).start()
            _bypass_proxy()
            _running = (os.getpid(), server)
        return f"http://127.0.0.1:{_running[1].server_port}{path}"


def _bypass_proxy() -> None:
    """Clients take proxies from the environment, and a proxy must not see the keys of this endpoint."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if "*" not in hosts and "127.0.0.1" not in hosts:
            os.environ[name] = ",".join([*hosts, "127.0.0.1"])


def _after_fork() -> None:
    global _lock, _running
    _lock = threading.Lock()
    if _running is not None:
        # The parent's: its thread is not here, so nobody would ever answer on this copy of its socket.
        _running[1].socket.close()
        _running = None


os.register_at_fork(after_in_child=_after_fork)
