"""One task for each region: every one of them has an identity, and a record, of its own."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), tags=["cortex"])
def hello_cortex_mapped() -> None:
    """Writes a file for each region."""

    @task
    def publish_region(region: str, run_id: str | None = None) -> None:
        key = f"hello_cortex_mapped/{run_id}/{region}.txt"
        S3Hook(aws_conn_id="cortex_first_steps__aws").load_string(region, key, bucket_name="finance-mart")

    publish_region.expand(region=["eu", "us", "ap"])


hello_cortex_mapped()
