"""A run that people approve first. Its reason is a param, so whoever triggers it says why."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.amazon.aws.operators.s3 import S3DeleteObjectsOperator
from airflow.sdk import DAG, Param

from cortex_provider.operators.grant import AwaitsApproval


class EraseApproved(AwaitsApproval, S3DeleteObjectsOperator):
    """Deletes objects once people have approved; until then it holds no worker slot."""


with DAG(
    "customer_erasure",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    params={"customer": Param(type="string"), "cortex_reason": Param(type="string", minLength=10)},
    tags=["cortex"],
):
    EraseApproved(
        task_id="erase",
        cortex_policy="customer-data-erasure",
        cortex_wait=timedelta(hours=8),
        aws_conn_id="cortex_customer_data_erasure",
        bucket="customer-data",
        prefix="{{ params.customer }}/",
    )
