"""A task that goes on until its credential is no longer renewed; the policy `airflow-long` names it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from airflow.sdk import dag, task

PATIENCE = 300.0
"""Seconds after which the task ends by itself, and the test has failed."""


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))
def long() -> None:
    @task
    def work() -> str:
        from airflow.sdk import Connection, Variable, get_current_context

        ti = get_current_context()["ti"]
        ti.xcom_push(key="id_token", value=Variable.get("cortex_id_token.cortex"))
        until = time.monotonic() + PATIENCE
        seen: list[str] = []
        while time.monotonic() < until:
            header = Connection.get("cortex_airflow_long").extra_dejson["Authorization"]
            if header not in seen:
                seen.append(header)
                ti.xcom_push(key="credentials", value=len(seen))
            time.sleep(0.5)
        return "never stopped"

    work()


long()
