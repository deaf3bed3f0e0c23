"""Asking people for an approval: what the operator and the sensor share."""

from __future__ import annotations

from typing import Any

from cortex_provider import compat
from cortex_provider.client import BrokerClient, GrantStatus
from cortex_provider.errors import ApprovalPending, CortexError, Unavailable
from cortex_provider.leases import ask_for, leases_for
from cortex_provider.run import current_run
from cortex_provider.settings import Settings


def request(settings: Settings, policy: str, reason: str | None) -> ApprovalPending | None:
    """Asks Cortex for the policy's credentials; None if no approval is missing, else what to wait for.

    Raises `AirflowFailException` where Cortex says no, for trying again changes nothing, and `Unavailable` where it
    may.
    """
    try:
        leases_for(settings).exchange(current_run(), ask_for(settings, policy, reason))
    except ApprovalPending as pending:
        return pending
    except Unavailable:
        raise
    except CortexError as error:
        raise compat.AirflowFailException(f"Cortex: {error}") from None
    return None


def status(settings: Settings, pending: ApprovalPending) -> GrantStatus:
    """Where the request stands; raises `CortexError`."""
    if pending.grant_handle is None:
        raise ApprovalPending(f"{pending}; this Cortex gives no handle to wait with", pending.grant_id, None, 0)
    client = BrokerClient(settings.url, settings.timeout, settings.ca_file)
    return client.grant_status(pending.grant_id, pending.grant_handle)


def outcome(event: dict[str, Any]) -> dict[str, Any]:
    """What the operator returns when people have decided; raises `AirflowFailException` unless they approved."""
    if event.get("status") != "approved":
        raise compat.AirflowFailException(f"Cortex: {event.get('sentence') or 'no decision'}")
    return {name: event.get(name) for name in ("grant_id", "policy", "decided_at", "decided_by", "comment")}
