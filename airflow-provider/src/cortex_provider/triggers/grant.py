"""Waits for people in the triggerer, where a wait costs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from cortex_provider.client import BrokerClient, GrantStatus
from cortex_provider.errors import CortexError, Unavailable

#: How long Cortex holds each question, in seconds.
HOLD = 20
#: The pause after an answer, in seconds: for a proxy that does not hold questions, and while Cortex is away.
PAUSE = 2.0


class CortexGrantTrigger(BaseTrigger):
    """Fires when a grant is approved, denied or expired, or when the wait is over.

    Its state is kept in Airflow's database. The grant's handle in it reveals the grant's status and nothing else.

    :param url: Cortex's address.
    :param until: When to give up, as seconds since 1970.
    """

    def __init__(
        self, url: str, grant_id: str, grant_handle: str, until: float, timeout: float = 30, ca_file: str | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.url = url
        self.grant_id = grant_id
        self.grant_handle = grant_handle
        self.until = until
        self.timeout = timeout
        self.ca_file = ca_file

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What is needed to wait on in another triggerer."""
        names = ("url", "grant_id", "grant_handle", "until", "timeout", "ca_file")
        state = {name: getattr(self, name) for name in names}
        return f"{CortexGrantTrigger.__module__}.{CortexGrantTrigger.__qualname__}", state

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields one event: `status`, `sentence`, and who decided, when and why."""
        yield TriggerEvent(await self._wait())  # type: ignore[no-untyped-call]

    async def _wait(self) -> dict[str, Any]:
        client = BrokerClient(self.url, self.timeout, self.ca_file)
        sentence = f"grant {self.grant_id}: nobody decided in the time that the task waits"
        while (left := self.until - time.time()) > 0:
            try:
                status = await client.agrant_status(self.grant_id, self.grant_handle, wait=int(min(HOLD, left)))
                if status.decided:
                    return event(status)
            except Unavailable as error:
                self.log.info("Cortex: asking again: %s", error)
            except CortexError as error:
                sentence = str(error)
                break
            await asyncio.sleep(min(PAUSE, left))
        return {"status": "undecided", "grant_id": self.grant_id, "sentence": sentence}


def event(status: GrantStatus) -> dict[str, Any]:
    """The grant's status as an event that Airflow can store."""
    return {**asdict(status), "decided_by": list(status.decided_by), "sentence": status.sentence()}
