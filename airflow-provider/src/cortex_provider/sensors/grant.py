"""A sensor for an approval, for installations without a triggerer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cortex_provider import compat, grants
from cortex_provider.errors import CortexError, Unavailable
from cortex_provider.hooks.cortex import settings_for
from cortex_provider.links.issuances import CortexIssuancesLink


class CortexGrantSensor(compat.BaseSensorOperator):
    """Requests a policy's approval and looks again until it is given.

    With `mode="reschedule"`, the default here, it holds a worker slot only while it looks. It fails, without retries,
    when people say no.

    :param policy: The policy.
    :param reason: Why, for the approver; the run's param (`cortex_reason`) takes precedence.
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
        cortex_conn_id: str | None = None,
        mode: str = "reschedule",
        **kwargs: Any,  # noqa: ANN401 whatever BaseOperator takes
    ) -> None:
        super().__init__(mode=mode, **kwargs)
        self.policy = policy
        self.reason = reason
        self.cortex_conn_id = cortex_conn_id

    def poke(self, context: compat.Context) -> bool:
        """Whether the approval is there."""
        settings = settings_for(self.cortex_conn_id)
        try:
            pending = grants.request(settings, self.policy, self.reason)
            if pending is None:
                return True
            status = grants.status(settings, pending)
        except Unavailable as error:
            self.log.info("Cortex: asking again: %s", error)
            return False
        except CortexError as error:
            raise compat.AirflowFailException(f"Cortex: {error}") from None
        return status.status == "approved"
