"""AWS, BigQuery and Snowflake with stock operators: only the connection ids are Cortex's.

The policy `first-steps` lets this DAG write; all three tasks together hold no secret longer than half an hour.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.amazon.aws.operators.s3 import S3CreateObjectOperator
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.google.cloud.operators.bigquery import BigQueryInsertJobOperator
from airflow.sdk import DAG

with DAG("hello_cortex", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), tags=["cortex"]):
    S3CreateObjectOperator(
        task_id="publish_s3",
        aws_conn_id="cortex_first_steps__aws",
        s3_bucket="finance-mart",
        s3_key="hello_cortex/{{ run_id }}/hello.txt",
        data="hello",
        replace=True,
    )
    BigQueryInsertJobOperator(
        task_id="publish_bigquery",
        gcp_conn_id="cortex_first_steps__bigquery",
        configuration={"query": {"query": "SELECT 1", "useLegacySql": False}},
    )
    SQLExecuteQueryOperator(
        task_id="publish_snowflake", conn_id="cortex_first_steps__snowflake", sql="SELECT CURRENT_ROLE()"
    )
