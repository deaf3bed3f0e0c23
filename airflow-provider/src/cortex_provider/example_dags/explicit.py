"""A `@task` that asks Cortex itself, for a client that has no Airflow hook."""

from __future__ import annotations

from datetime import datetime, timezone

import httpx
from airflow.sdk import dag, task

from cortex_provider.hooks.cortex import CortexHook


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), tags=["cortex"])
def ledger_export() -> None:
    """Reads postings from a private API."""

    @task
    def read_postings() -> int:
        api = CortexHook().credentials("ledger-api-read")["api"]
        bearer = {"Authorization": f"Bearer {api.secrets['token']}"}
        answer = httpx.get(f"{api.details['audience']}/postings", headers=bearer, timeout=30)
        return len(answer.raise_for_status().json())

    read_postings()


ledger_export()
