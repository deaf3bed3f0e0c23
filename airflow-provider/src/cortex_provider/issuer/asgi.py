"""The few lines of ASGI that the issuer needs.

Airflow loads plugins in every one of its processes, workers too; so the plugin imports no web framework.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def route_path(scope: Scope) -> str:
    """The request's path below the one that this application is mounted at."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def first_header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a header, by its name in lower case."""
    return next((bytes(value) for key, value in scope["headers"] if key == name), None)


async def answer_json(send: Send, status: int, body: object, cache_control: str) -> None:
    """Sends one JSON answer."""
    content = json.dumps(body, separators=(",", ":")).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", cache_control.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
