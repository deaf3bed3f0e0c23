"""Stock hooks against the sandbox clouds: the policy `airflow-clouds` names this DAG."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag, task


@dag(schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=UTC))
def clouds() -> None:
    @task
    def s3() -> dict[str, Any]:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from airflow.sdk import get_current_context

        run_id = get_current_context()["run_id"]

        hook = S3Hook()
        hook.load_string("hello", f"clouds/{run_id}/hello.txt", "finance-mart", replace=True)
        read = hook.read_key(f"clouds/{run_id}/hello.txt", "finance-mart")
        try:
            hook.load_string("no", "elsewhere/hello.txt", "finance-mart", replace=True)
        except Exception as error:
            return {"read": read, "elsewhere": str(error)}
        return {"read": read, "elsewhere": "written"}

    @task
    def bigquery() -> list[Any]:
        from airflow.providers.google.cloud.hooks.bigquery import BigQueryHook

        hook = BigQueryHook(use_legacy_sql=False)
        client = hook.get_client(project_id=hook.project_id)
        rows = client.query_and_wait("SELECT COUNT(*) FROM `acme-finance.mart.daily`")
        return [list(row.values()) for row in rows]

    @task
    def snowflake() -> list[Any]:
        from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook

        row = SnowflakeHook().get_first("SELECT CURRENT_USER(), CURRENT_ROLE()")
        return list(row)

    @task
    def http() -> dict[str, Any]:
        from airflow.providers.http.hooks.http import HttpHook

        answer: dict[str, Any] = HttpHook(method="GET").run("/postings").json()
        return answer

    @task(retries=1, retry_delay=0.1)
    def retried() -> int:
        from airflow.sdk import Connection, get_current_context

        Connection.get("http_default")
        attempt = int(get_current_context()["ti"].try_number)
        if attempt == 1:
            raise RuntimeError("the first try fails, once it has its credential")
        return attempt

    @task
    def mapped(number: int) -> int:
        from airflow.sdk import Connection

        Connection.get("http_default")
        return number

    s3()
    bigquery()
    snowflake()
    http()
    retried()
    mapped.expand(number=[0, 1])


clouds()
