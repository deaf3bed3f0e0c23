"""From a task's page to what Cortex has on record about it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from cortex_provider import compat
from cortex_provider.errors import CortexError
from cortex_provider.hooks.cortex import settings_for


class CortexIssuancesLink(compat.BaseOperatorLink):
    """The issuances and denials of a task, in Cortex. Reading them takes an auditor's sign-in there."""

    name = "Cortex issuances"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ANN401 Airflow 2 and 3 hand over different classes
        """The address; empty where this process does not know Cortex's."""
        try:
            url = settings_for(getattr(operator, "cortex_conn_id", None)).url.rstrip("/")
        except CortexError:
            return ""
        query = urlencode({"dag_id": ti_key.dag_id, "run_id": ti_key.run_id, "task_id": ti_key.task_id})
        return f"{url}/console/issuances?{query}"
