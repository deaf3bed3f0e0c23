"""A task that waits for an approval."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cortex_provider import compat, grants
from cortex_provider.hooks.cortex import settings_for
from cortex_provider.links.issuances import CortexIssuancesLink
from cortex_provider.triggers.grant import CortexGrantTrigger


class CortexGrantOperator(compat.BaseOperator):
    """Requests a policy's approval and waits for it without a worker slot.

    It ends at once if the policy wants no approval for this run, or has it. It fails, without retries, when people
    say no or nobody decides in time, with who, when and why. Its result is the grant: id, policy, who, when, why.

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
        wait: timedelta = timedelta(days=1),
        cortex_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 whatever BaseOperator takes
    ) -> None:
        super().__init__(**kwargs)
        self.policy = policy
        self.reason = reason
        self.wait = wait
        self.cortex_conn_id = cortex_conn_id

    def execute(self, context: compat.Context) -> dict[str, Any] | None:
        """Requests the approval and defers until people have decided."""
        settings = settings_for(self.cortex_conn_id)
        pending = grants.request(settings, self.policy, self.reason)
        if pending is None:
            self.log.info("Cortex: policy %s needs no further approval", self.policy)
            return None
        self.log.info("Cortex: %s", pending)
        if pending.grant_handle is None:
            raise compat.AirflowFailException(f"Cortex: {pending}; this Cortex gives no handle to wait with")
        trigger = CortexGrantTrigger(
            settings.url,
            pending.grant_id,
            pending.grant_handle,
            time.time() + self.wait.total_seconds(),
            settings.timeout,
            settings.ca_file,
        )
        self.defer(trigger=trigger, method_name="execute_complete")

    def execute_complete(self, context: compat.Context, event: dict[str, Any]) -> dict[str, Any]:
        """Ends as people have decided."""
        result = grants.outcome(event)
        self.log.info("Cortex: %s", event.get("sentence"))
        return result
