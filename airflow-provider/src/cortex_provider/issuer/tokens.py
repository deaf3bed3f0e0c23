"""ID tokens: what is signed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cortex_provider.issuer.errors import Refused
from cortex_provider.issuer.keys import SigningKey

MAX_SUBJECT = 255
"""OpenID Connect's limit, in characters."""

MAX_TOKEN = 16 * 1024
"""What Cortex accepts, in bytes."""


@dataclass(frozen=True)
class IdToken:
    """A signed ID token, and its name for the log."""

    jti: str
    encoded: str = field(repr=False)


def subject(dag_id: str, task_id: str) -> str:
    """The `sub` of a task: `airflow:dag:<dag>:task:<task>`; where that is too long, its digest."""
    text = f"airflow:dag:{dag_id}:task:{task_id}"
    if len(text) <= MAX_SUBJECT:
        return text
    return f"airflow:sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def sign(key: SigningKey, issuer: str, audience: str, run: Mapping[str, Any], now: int, lifetime: int) -> IdToken:
    """Signs an ID token for one running task.

    :param now: in seconds since the epoch.
    :param lifetime: in seconds.
    :raises Refused: when the token would be longer than Cortex accepts.
    """
    import jwt

    jti = secrets.token_urlsafe(24)
    claims = {
        "iss": issuer,
        "sub": subject(run["dag_id"], run["task_id"]),
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now + lifetime,
        "jti": jti,
        "airflow": dict(run),
    }
    encoded = jwt.encode(claims, key.private, algorithm="RS256", headers={"kid": key.kid})
    if len(encoded) > MAX_TOKEN:
        raise Refused(f"the ID token would be longer than {MAX_TOKEN} bytes: the DAG has too many tags or owners")
    return IdToken(jti, encoded)
