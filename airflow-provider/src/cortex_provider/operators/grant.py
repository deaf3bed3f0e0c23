"""Tasks that wait for an approval without a worker slot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cortex_provider import compat, grants
from cortex_provider.hooks.cortex import settings_for
from cortex_provider.links.issuances import CortexIssuancesLink

A_DAY = timedelta(days=1)


class CortexGrantOperator(compat.BaseOperator):
    """A gate: requests a policy's approval for this task and waits until people have decided.

    It ends at once if the policy wants no approval for this run, or has it. It fails, without retries, when people
    say no or nobody decides in time, with who, when and why. Its result is the grant: id, policy, who, when, why.
    The policy has to name this task. An approval is for the task that asked: a task that uses credentials of its own
    waits with `AwaitsApproval`.

    :param policy: The policy.
    :param reason: Why, for the approver; the run's param (`cortex_reason`) takes precedence.
    :param wait: How long to wait for a decision. Cortex itself gives up on a request after a time of its own.
    :param cortex_conn_id: A connection of type `cortex`; None: the worker's configuration.
    """

    template_fields: Sequence[str] = ("policy", "reason")
    operator_extra_links = (CortexIssuancesLink(),)
    ui_color = "#e8ecf8"

    def __init__(
        self,
        *,
        policy: str,
        reason: str | None = None,
        wait: timedelta = A_DAY,
        cortex_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 whatever BaseOperator takes
    ) -> None:
        super().__init__(**kwargs)
        self.policy = policy
        self.reason = reason
        self.wait = wait
        self.cortex_conn_id = cortex_conn_id

    def execute(self, context: compat.Context) -> None:
        """Requests the approval and defers until people have decided."""
        settings = settings_for(self.cortex_conn_id)
        grants.defer_until_approved(self, settings, self.policy, self.reason, self.wait, "execute_complete")

    def execute_complete(self, context: compat.Context, event: dict[str, Any]) -> dict[str, Any]:
        """Ends as people have decided."""
        return grants.outcome(event)


class AwaitsApproval(compat.BaseOperator):
    """Lets any operator wait for its policy's approval before it begins, without a worker slot meanwhile.

        class EraseApproved(AwaitsApproval, S3DeleteObjectsOperator):
            pass

        EraseApproved(task_id="erase", cortex_policy="customer-data-erasure", aws_conn_id="cortex_…", bucket=…)

    The task fails, without retries, when people say no or nobody decides in time.

    :param cortex_policy: The policy.
    :param cortex_reason: Why, for the approver; the run's param (`cortex_reason`) takes precedence.
    :param cortex_wait: How long to wait for a decision.
    :param cortex_conn_id: A connection of type `cortex`; None: the worker's configuration.
    """

    def __init__(
        self,
        *,
        cortex_policy: str,
        cortex_reason: str | None = None,
        cortex_wait: timedelta = A_DAY,
        cortex_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 whatever the operator takes
    ) -> None:
        super().__init__(**kwargs)
        self.cortex_policy = cortex_policy
        self.cortex_reason = cortex_reason
        self.cortex_wait = cortex_wait
        self.cortex_conn_id = cortex_conn_id

    def execute(self, context: compat.Context) -> Any:  # noqa: ANN401 as the operator's own
        """Waits if an approval is missing; then does what the operator does."""
        settings = settings_for(self.cortex_conn_id)
        policy, reason, wait = self.cortex_policy, self.cortex_reason, self.cortex_wait
        grants.defer_until_approved(self, settings, policy, reason, wait, "execute_approved")
        return super().execute(context)

    def execute_approved(self, context: compat.Context, event: dict[str, Any]) -> Any:  # noqa: ANN401 see execute
        """Does what the operator does, if people approved."""
        grants.outcome(event)
        return super().execute(context)
