"""A long task under `cortex exec`: an unmodified client that works on, whatever becomes of its first credential.

It takes its credentials from the environment alone and makes one client for its whole life. For each credential that
its requests succeed with it prints a line of JSON. After `--renewals` of them it reads one line from standard input,
and goes on until it has succeeded with one more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEADLINE = 240.0
PAUSE = 0.3
TIMEOUT = 20

Use = Callable[[], str]


def aws(options: argparse.Namespace) -> Use:
    """Writes to S3 with boto3, and says with which access key."""
    import boto3
    from botocore.config import Config

    session = boto3.Session()
    config = Config(
        connect_timeout=5, read_timeout=TIMEOUT, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
    )
    s3 = session.client("s3", endpoint_url=options.endpoint, config=config)

    def use() -> str:
        s3.put_object(Bucket=options.bucket, Key=options.key, Body=b"42")
        return str(session.get_credentials().access_key)

    return use


def google(options: argparse.Namespace) -> Use:
    """Queries BigQuery with google-auth's default credentials, and says with which access token."""
    import google.auth
    from google.api_core.client_options import ClientOptions
    from google.cloud import bigquery

    credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/bigquery"])
    client = bigquery.Client(
        project=project, credentials=credentials, client_options=ClientOptions(api_endpoint=options.endpoint)
    )
    retry = bigquery.DEFAULT_RETRY.with_timeout(TIMEOUT)

    def use() -> str:
        list(client.query_and_wait(options.query, api_timeout=TIMEOUT, wait_timeout=TIMEOUT, retry=retry))
        return str(credentials.token)

    return use


def snowflake(options: argparse.Namespace) -> Use:
    """Logs in by the default connection, again and again, and says with which token."""
    import snowflake.connector

    where = {"host": options.host, "port": options.port, "protocol": "http"}
    account, role = os.environ["SNOWFLAKE_ACCOUNT"], os.environ["SNOWFLAKE_ROLE"]

    def use() -> str:
        token = Path(os.environ["SNOWFLAKE_TOKEN_FILE_PATH"]).read_text()
        with (
            snowflake.connector.connect(connection_name="default", login_timeout=TIMEOUT, **where) as connection,
            connection.cursor() as cursor,
        ):
            row = cursor.execute("SELECT CURRENT_ROLE()").fetchone()
        if connection.account != account or row != (role,):
            raise RuntimeError(f"{connection.account}: {row}")
        return token

    return use


CLIENTS: dict[str, Callable[[argparse.Namespace], Use]] = {"aws": aws, "google": google, "snowflake": snowflake}


def say(**line: Any) -> None:  # noqa: ANN401, any JSON
    print(json.dumps(line), flush=True)


def work(use: Use, renewals: int) -> None:
    used: list[str] = []
    give_up = time.monotonic() + DEADLINE
    wanted = renewals + 1
    while len(used) < wanted:
        if time.monotonic() > give_up:
            raise TimeoutError(f"only {len(used)} credentials in {DEADLINE} s")
        try:
            name = hashlib.sha256(use().encode()).hexdigest()[:16]
        except Exception as error:  # between the end of one credential and the next one, requests fail
            say(failed=f"{type(error).__name__}: {error}"[:500])
        else:
            if name not in used:
                used.append(name)
                say(used=name)
                if len(used) == renewals + 1:
                    sys.stdin.readline()
                    wanted = renewals + 2
        time.sleep(PAUSE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=sorted(CLIENTS))
    parser.add_argument("--renewals", type=int, default=2)
    parser.add_argument("--endpoint", help="of S3 or BigQuery")
    parser.add_argument("--bucket")
    parser.add_argument("--key")
    parser.add_argument("--query")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    work(CLIENTS[options.client](options), options.renewals)


if __name__ == "__main__":
    main()
