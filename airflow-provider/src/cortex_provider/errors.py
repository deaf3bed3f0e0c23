"""What can go wrong between a task and Cortex. Every message is a sentence for the task log; none holds a secret."""

from __future__ import annotations


class CortexError(Exception):
    """Anything that keeps a credential from a task."""


class NotConfigured(CortexError):
    """The package's own configuration is missing or wrong."""


class NoIdentity(CortexError):
    """There is no token that says who asks: not a running task, or Airflow gave none."""


class Refused(CortexError):
    """Cortex said no, for good. Asking again changes nothing."""

    def __init__(self, code: str, description: str, decision_id: str | None = None) -> None:
        suffix = f" (decision {decision_id})" if decision_id else ""
        super().__init__(f"{description}{suffix}")
        self.code = code
        self.decision_id = decision_id


class ApprovalPending(CortexError):
    """People have to approve first."""

    def __init__(self, description: str, grant_id: str, grant_handle: str | None, interval: int) -> None:
        super().__init__(description)
        self.grant_id = grant_id
        #: Reveals the grant's status and nothing else, so it may be kept where others can read it.
        self.grant_handle = grant_handle
        #: How long to wait before asking again, in seconds.
        self.interval = interval


class GrantRefused(Refused):
    """People said no, or nobody decided in time."""

    def __init__(self, description: str) -> None:
        super().__init__("access_denied", description)


class Unavailable(CortexError):
    """Cortex, or what it needs, cannot be reached at the moment."""

    def __init__(self, description: str, retry_after: float | None = None) -> None:
        super().__init__(description)
        #: When to come back, in seconds, where Cortex said so.
        self.retry_after = retry_after


class NotUnderstood(CortexError):
    """The other side answered something that is not of the protocol."""
