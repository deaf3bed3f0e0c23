"""Two tasks that get a credential for a private API from Cortex: the first at once, the second once carol has approved."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, task
from cortex_provider.hooks.cortex import CortexHook
from cortex_provider.operators.grant import AwaitsApproval
from airflow.providers.standard.operators.python import PythonOperator


def describe(policy: str) -> str:
    """What a task has: never the token itself."""
    api = CortexHook().credentials(policy)["api"]
    return f"a token for {api.details['audience']} until {api.expires_at}"


class Approved(AwaitsApproval, PythonOperator):
    """Runs once people have approved, and takes no worker slot until then."""


with DAG("hello_cortex", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"cortex_reason": "a try"}) as dag:

    @task
    def read() -> str:
        return describe("ledger-read")

    write = Approved(
        task_id="write",
        cortex_policy="ledger-write",
        python_callable=describe,
        op_args=["ledger-write"],
    )

    read() >> write
