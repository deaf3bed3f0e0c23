"""The worker's secrets backend: connections whose credentials Cortex mints for the task that asks."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from cortex_provider import compat
from cortex_provider.connections import connection
from cortex_provider.errors import CortexError
from cortex_provider.fallback import Fallback
from cortex_provider.identity import VARIABLE_PREFIX
from cortex_provider.leases import ask_for, leases_for
from cortex_provider.renewal.registry import renewal_for
from cortex_provider.run import current_run
from cortex_provider.settings import ConnectionRule, Settings

log = logging.getLogger(__name__)


class CortexBackend(compat.BaseSecretsBackend):
    """Answers Cortex's connection ids, by prefix and by map, and leaves all others to Airflow.

    `[workers] secrets_backend = cortex_provider.secrets.CortexBackend`; the keyword arguments are the fields of
    `cortex_provider.settings.Settings`. Whatever goes wrong for an id that is Cortex's ends the lookup with
    `AirflowSecretsBackendAccessDenied`, so that no hook goes on with credentials of the machine.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__()
        self._settings = Settings.parse(kwargs)
        self._leases = leases_for(self._settings)
        self._fallback = Fallback(self._settings.fallback, self._settings.fallback_kwargs)

    def get_connection(self, conn_id: str, team_name: str | None = None) -> compat.Connection | None:
        """The connection with its credential; None for an id that is not Cortex's.

        Raises `AirflowSecretsBackendAccessDenied` with the sentence that says why not.
        """
        try:
            rule = self._settings.rule(conn_id)
            if rule is not None:
                return self._build(conn_id, rule)
        except CortexError as error:
            raise self._denied(conn_id, error) from None
        except Exception as error:
            # Airflow would go on to the next backend. The error may quote what it stumbled over, so only its kind.
            log.debug("Cortex: connection %s failed", conn_id, exc_info=True)
            raise self._denied(conn_id, f"unexpected {type(error).__name__} in airflow-provider-cortex") from None
        return cast("compat.Connection | None", self._fallback.ask("get_connection", conn_id, team_name))

    async def aget_connection(self, conn_id: str) -> compat.Connection | None:
        """The same for an event loop, which goes on meanwhile: in a thread, with the caller's context."""
        return await asyncio.to_thread(self.get_connection, conn_id)

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        """Nothing: connections are built whole."""
        return None

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        """What the fallback has; ID tokens are the API server's to give."""
        if key.startswith(VARIABLE_PREFIX):
            return None
        return cast("str | None", self._fallback.ask("get_variable", key, team_name))

    def get_config(self, key: str) -> str | None:
        """What the fallback has."""
        return cast("str | None", self._fallback.ask("get_config", key))

    def _build(self, conn_id: str, rule: ConnectionRule) -> compat.Connection:
        run = current_run()
        ask = ask_for(self._settings, rule.policy, rule.reason, rule.ttl_seconds)
        credential = self._leases.credential(run, ask, rule.target)
        renewal = renewal_for(self._leases, run, ask, credential.target)
        return connection(conn_id, rule, credential, renewal)

    @staticmethod
    def _denied(conn_id: str, why: CortexError | str) -> compat.AccessDenied:
        log.error("Cortex: connection %s: %s", conn_id, why)
        return compat.AccessDenied(f"Cortex: connection {conn_id}: {why}")
