"""Asking people for an approval: what the operators and the sensor share."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

from cortex_provider import compat
from cortex_provider.client import BrokerClient, GrantStatus
from cortex_provider.errors import ApprovalPending, CortexError, Unavailable
from cortex_provider.leases import ask_for, leases_for
from cortex_provider.run import current_run
from cortex_provider.settings import Settings
from cortex_provider.triggers.grant import CortexGrantTrigger

log = logging.getLogger(__name__)


def request(settings: Settings, policy: str, reason: str | None) -> ApprovalPending | None:
    """Asks Cortex for the policy's credentials; None if no approval is missing, else what to wait for.

    Raises `AirflowFailException` where Cortex says no, for trying again changes nothing, and `Unavailable` where it
    may.
    """
    try:
        leases_for(settings).exchange(current_run(), ask_for(settings, policy, reason))
    except ApprovalPending as pending:
        log.info("Cortex: %s", pending)
        if pending.grant_handle is None:
            raise compat.AirflowFailException(f"Cortex: {pending}; this Cortex gives no handle to wait with") from None
        return pending
    except Unavailable:
        raise
    except CortexError as error:
        raise compat.AirflowFailException(f"Cortex: {error}") from None
    return None


def defer_until_approved(
    operator: compat.BaseOperator,
    settings: Settings,
    policy: str,
    reason: str | None,
    wait: timedelta,
    method_name: str,
) -> None:
    """Requests the approval that is missing and defers `operator` until people have decided; returns if none is.

    `method_name` is called with the event; `outcome` reads it.
    """
    pending = request(settings, policy, reason)
    if pending is None:
        log.info("Cortex: policy %s: no approval is missing", policy)
        return
    until = time.time() + wait.total_seconds()
    handle = pending.grant_handle or ""
    trigger = CortexGrantTrigger(settings.url, pending.grant_id, handle, until, settings.timeout, settings.ca_file)
    operator.defer(trigger=trigger, method_name=method_name)


def status(settings: Settings, pending: ApprovalPending) -> GrantStatus:
    """Where the request stands; raises `CortexError`."""
    client = BrokerClient(settings.url, settings.timeout, settings.ca_file)
    return client.grant_status(pending.grant_id, pending.grant_handle or "")


def outcome(event: dict[str, Any]) -> dict[str, Any]:
    """The grant that people gave: id, policy, who, when, why; raises `AirflowFailException` unless they approved."""
    sentence = event.get("sentence") or "no decision"
    if event.get("status") != "approved":
        raise compat.AirflowFailException(f"Cortex: {sentence}")
    log.info("Cortex: %s", sentence)
    return {name: event.get(name) for name in ("grant_id", "policy", "decided_at", "decided_by", "comment")}
