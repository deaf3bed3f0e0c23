"""Which task instance asks: proven by the bearer token that Airflow's scheduler gave it, verified here again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cortex_provider.issuer.asgi import Scope, first_header
from cortex_provider.issuer.errors import Refused

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.tokens import JWTValidator

log = logging.getLogger(__name__)

MAX_BEARER = 8 * 1024


class Callers:
    """Tells who asks. It belongs to one event loop, as the validator in it does."""

    def __init__(self) -> None:
        self._validator: JWTValidator | None = None

    async def task_instance(self, scope: Scope) -> UUID:
        """The id of the task instance whose execution token the request shows.

        :raises Refused: without one that is valid. It does not say what is wrong, for nobody is verified yet.
        """
        if self._validator is None:
            self._validator = _validator()
        try:
            claims: dict[str, Any] = await self._validator.avalidated_claims(_bearer(scope))
            # The token in a queue's message can start its task, and nothing else.
            if claims.get("scope", "execution") != "execution":
                raise ValueError(f"its scope is {claims['scope']!r}")
            return UUID(claims["sub"])
        except Exception as error:
            log.warning("no ID token: the caller's Execution API token is not valid: %s", error)
            raise Refused("a valid Execution API token is needed") from None


def _bearer(scope: Scope) -> str:
    # Airflow adds a second one when everybody is an admin; it reads the first, and so must we.
    header = first_header(scope, b"authorization") or b""
    kind, _, token = header.partition(b" ")
    if kind.lower() != b"bearer" or not token or len(token) > MAX_BEARER:
        raise ValueError("there is none")
    return token.decode("ascii")


def _validator() -> JWTValidator:
    """Verifies as the Execution API does: with its keys, issuer and audience."""
    from airflow.api_fastapi.auth.tokens import JWTValidator, get_sig_validation_args
    from airflow.configuration import conf

    issuer = conf.get("api_auth", "jwt_issuer", fallback=None)
    return JWTValidator(
        required_claims=frozenset({"aud", "exp", "iat", "sub"} | ({"iss"} if issuer else set())),
        issuer=issuer,
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience"),
        **get_sig_validation_args(make_secret_key_if_needed=False),
    )
