"""What the issuer publishes: its discovery document and its keys. Anybody may read both."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cortex_provider.issuer import settings
from cortex_provider.issuer.asgi import Receive, Scope, Send, answer_json
from cortex_provider.issuer.errors import Misconfigured
from cortex_provider.issuer.keys import KeyRing

log = logging.getLogger(__name__)

CACHE = "public, max-age=300"
"""How long a verifier may keep them; a rotation's overlap must be longer."""


class IssuerDocuments:
    """The application under `/cortex-oidc`."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return
        # A proxy may leave the path of `[api] base_url` in the request, or not.
        below = str(scope["path"]).rpartition(settings.PREFIX)[2]
        document = {"/.well-known/openid-configuration": self._discovery, "/jwks": self._jwks}.get(below)
        if document is None:
            await answer_json(send, 404, {"error": "not_found"}, "no-store")
        elif scope["method"] not in ("GET", "HEAD"):
            await answer_json(send, 405, {"error": "method_not_allowed"}, "no-store")
        else:
            try:
                body = await asyncio.to_thread(document)
            except Misconfigured as fault:
                log.error("Cortex: nothing to publish: %s", fault)
                await answer_json(send, 503, {"error": "issuer_not_configured"}, "no-store")
            else:
                await answer_json(send, 200, body, CACHE)

    def _discovery(self) -> dict[str, Any]:
        issuer = settings.issuer_url()
        return {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "airflow"],
            # Not of the standard: lets `cortex doctor airflow` see whether both sides name the same audience.
            "cortex_audiences": sorted(settings.audiences()),
        }

    def _jwks(self) -> dict[str, Any]:
        return {"keys": [key.jwk() for key in self._keys.current().published]}
