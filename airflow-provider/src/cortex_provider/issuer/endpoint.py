"""The way of a request for an ID token.

A task asks the Execution API for the variable `cortex_id_token.<audience>`, which its supervisor does with the task's
own token. The API server's root middleware answers: after Airflow had looked up a variable in a secrets backend it
would keep the value in its log masker for as long as the process lives, which for a new token each time never ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from uuid import UUID

from cortex_provider.issuer import settings
from cortex_provider.issuer.asgi import App, Receive, Scope, Send, answer_json, route_path
from cortex_provider.issuer.caller import Callers
from cortex_provider.issuer.errors import Misconfigured, Refused
from cortex_provider.issuer.keys import KeyRing
from cortex_provider.issuer.limits import MintLimit
from cortex_provider.issuer.runs import running_task
from cortex_provider.issuer.tokens import IdToken, sign

log = logging.getLogger(__name__)

VARIABLE = "cortex_id_token."
_ROUTE = f"/execution/variables/{VARIABLE}"


class IdTokenEndpoint:
    """Root middleware of the API server: answers requests for an ID token, and passes all others on."""

    def __init__(self, app: App, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys
        self._callers = Callers()
        self._limit = MintLimit()
        _say_what_is_wrong(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["method"] != "GET" or not route_path(scope).startswith(_ROUTE):
            await self._app(scope, receive, send)
            return
        audience = route_path(scope)[len(_ROUTE) :]
        try:
            encoded = await self._id_token(scope, audience)
        except Refused as refusal:
            detail = {"reason": "access_denied", "message": str(refusal)}
            await answer_json(send, 403, {"detail": detail}, "no-store")
        except Exception:
            # The client asks again for a while: the database may have been away for a moment.
            log.exception("no ID token, by a fault of the issuer")
            await answer_json(send, 503, {"detail": "the issuer failed: the API server's log says why"}, "no-store")
        else:
            await answer_json(send, 200, {"key": f"{VARIABLE}{audience}", "value": encoded}, "no-store")

    async def _id_token(self, scope: Scope, audience: str) -> str:
        """Who asks, whether it runs, what is signed.

        :raises Refused: also when the issuer is not configured, which no second attempt mends.
        """
        ti_id = await self._callers.task_instance(scope)
        try:
            self._limit.count(ti_id)
            # The database and the signature would hold up the event loop.
            return (await asyncio.to_thread(self._mint, ti_id, audience)).encoded
        except Refused as refusal:
            log.warning("no ID token for task instance %s: %s", ti_id, refusal)
            raise
        except Misconfigured as fault:
            log.error("no ID token for task instance %s: %s", ti_id, fault)
            raise Refused(f"the issuer is not configured: {fault}") from None

    def _mint(self, ti_id: UUID, audience: str) -> IdToken:
        if audience not in settings.audiences():
            raise Refused(f"the audience {audience!r:.300} is not in [cortex] issuer_audiences")
        issuer, lifetime, key = settings.issuer_url(), settings.token_lifetime(), self._keys.current().signing
        run = running_task(ti_id)
        token = sign(key, issuer, audience, run, int(time.time()), lifetime)
        log.info(
            "ID token %s for dag %s, run %s, task %s, map index %s, try %s, audience %s",
            token.jti,
            run["dag_id"],
            run["run_id"],
            run["task_id"],
            run["map_index"],
            run["try_number"],
            audience,
        )
        return token


def _say_what_is_wrong(keys: KeyRing) -> None:
    """Makes the first key and checks the configuration; a fault stops this issuer, but not the API server."""
    try:
        issuer, kid = settings.issuer_url(), keys.current().signing.kid
        names = ", ".join(sorted(settings.audiences()))
        log.info("Cortex: issuer %s, audiences %s, key %s, %s s", issuer, names, kid, settings.token_lifetime())
    except Misconfigured as fault:
        log.error("Cortex: no ID token can be signed: %s", fault)
