"""An operator that waits for people without a worker slot; the policy `airflow-approved` names it."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.amazon.aws.operators.s3 import S3CreateObjectOperator
from airflow.sdk import DAG
from cortex_provider.operators.grant import AwaitsApproval


class Approved(AwaitsApproval, S3CreateObjectOperator):
    """Writes once people have approved."""


with DAG("approved", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"cortex_reason": ""}):
    Approved(
        task_id="write",
        cortex_policy="airflow-approved",
        aws_conn_id="approved_aws",
        s3_bucket="finance-mart",
        s3_key="approved/{{ run_id }}/hello.txt",
        data="hello",
        replace=True,
    )
