"""A DAG that no policy names, on a machine with credentials of its own."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))
def stranger() -> None:
    @task
    def ambient() -> str:
        """Writes with the machine's own credentials: they are there, and they are good."""
        import boto3

        client: Any = boto3.client("s3", endpoint_url=os.environ["SANDBOX_AWS"])
        client.put_object(Bucket="finance-mart", Key="hello_cortex/scheduled__1/ambient", Body=b"theirs")
        return "written"

    @task
    def s3() -> str:
        """What the hook would write just the same, if it fell back to them."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        S3Hook().load_string("taken", "hello_cortex/scheduled__1/stranger", "finance-mart", replace=True)
        return "written"

    ambient()
    s3()


stranger()
