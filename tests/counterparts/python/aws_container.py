"""An unmodified boto3 that gets its credentials from Cortex, as an Airflow task's does.

The environment says where from, in the SDK's own words: AWS_CONTAINER_CREDENTIALS_FULL_URI and
AWS_CONTAINER_AUTHORIZATION_TOKEN.
"""

from __future__ import annotations

import argparse
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from report import Unexpected, report


def refusal(client: Any, **put: Any) -> str:  # noqa: ANN401, boto3 makes its clients at run time
    """The code that a write outside the scope is refused with."""
    try:
        client.put_object(**put)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    raise Unexpected(f"{put['Key']} was written")


def act(options: argparse.Namespace) -> dict[str, Any]:
    session = boto3.Session(region_name=options.region)
    config = Config(
        connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 2}, s3={"addressing_style": "path"}
    )
    answer: dict[str, Any] = {}
    if options.sts_endpoint:
        identity = session.client("sts", endpoint_url=options.sts_endpoint, config=config).get_caller_identity()
        answer |= {"account": identity["Account"], "arn": identity["Arn"], "user_id": identity["UserId"]}
    if options.s3_endpoint:
        s3 = session.client("s3", endpoint_url=options.s3_endpoint, config=config)
        if options.key:
            s3.put_object(Bucket=options.bucket, Key=options.key, Body=options.body.encode())
        if options.read_key:
            answer["read"] = s3.get_object(Bucket=options.bucket, Key=options.read_key)["Body"].read().decode()
        if options.denied_key:
            answer["denied"] = refusal(s3, Bucket=options.bucket, Key=options.denied_key, Body=b"not allowed")
    credentials = session.get_credentials()
    return {**answer, "access_key_id": credentials.access_key, "method": credentials.method}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--region", default="eu-west-1")
    parser.add_argument("--sts-endpoint", help="ask this STS who we are")
    parser.add_argument("--s3-endpoint", help="read and write there")
    parser.add_argument("--bucket")
    parser.add_argument("--key", help="write this object")
    parser.add_argument("--body", default="written by boto3")
    parser.add_argument("--read-key", help="read this object")
    parser.add_argument("--denied-key", help="try to write this object, which must be refused")
    options = parser.parse_args()
    report(lambda: act(options))


if __name__ == "__main__":
    main()
