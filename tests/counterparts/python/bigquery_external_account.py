"""An unmodified google-cloud-bigquery whose access token comes from Cortex, by workload identity federation.

Cortex's token endpoint speaks RFC 8693, so google-auth exchanges the subject token there by itself: its
`external_account` configuration is all that a task needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import google.auth
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import Forbidden
from google.cloud import bigquery
from report import Unexpected, report

SCOPE = "https://www.googleapis.com/auth/bigquery"
TIMEOUT = 30.0
RETRY = bigquery.DEFAULT_RETRY.with_timeout(TIMEOUT)


def subject_source(options: argparse.Namespace) -> dict[str, Any]:
    """Where google-auth reads the subject token, again at every exchange."""
    if options.subject_token_file:
        return {"file": str(options.subject_token_file)}
    source: dict[str, Any] = {"url": options.subject_token_url}
    if options.subject_token_header:
        source["headers"] = dict(header.split(": ", 1) for header in options.subject_token_header)
    if options.subject_token_field:
        source["format"] = {"type": "json", "subject_token_field_name": options.subject_token_field}
    return source


def rows(client: bigquery.Client, sql: str, job: bool) -> list[dict[str, Any]]:
    if job:
        found = client.query(sql, timeout=TIMEOUT, retry=RETRY).result(timeout=TIMEOUT)
    else:
        found = client.query_and_wait(sql, api_timeout=TIMEOUT, wait_timeout=TIMEOUT, retry=RETRY)
    return [dict(row.items()) for row in found]


def refusal(client: bigquery.Client, sql: str, job: bool) -> str:
    """What a query that must be refused is refused with."""
    try:
        rows(client, sql, job)
    except Forbidden as error:
        return str(error.message)
    raise Unexpected(f"answered: {sql}")


def act(options: argparse.Namespace) -> dict[str, Any]:
    account = {
        "type": "external_account",
        "audience": options.audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": options.token_url,
        "credential_source": subject_source(options),
    }
    credentials, _ = google.auth.load_credentials_from_dict(account, scopes=[options.scope])
    client = bigquery.Client(
        project=options.project,
        credentials=credentials,
        client_options=ClientOptions(api_endpoint=options.api_endpoint),
    )
    answer: dict[str, Any] = {"rows": rows(client, options.query, options.job)}
    if options.refused_query:
        answer["refused"] = refusal(client, options.refused_query, options.job)
    return answer | {"expires_at": credentials.expiry.isoformat()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--token-url", required=True, help="Cortex's /v1/token")
    parser.add_argument("--audience", required=True, help="urn:cortex:<policy>:bigquery")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--subject-token-file", type=Path)
    source.add_argument("--subject-token-url")
    parser.add_argument("--subject-token-header", action="append", metavar="NAME: VALUE")
    parser.add_argument("--subject-token-field", help="the field, where the URL answers JSON")
    parser.add_argument("--scope", default=SCOPE)
    parser.add_argument("--api-endpoint", required=True, help="BigQuery's, or the sandbox's")
    parser.add_argument("--project", required=True)
    parser.add_argument("--query", required=True)
    parser.add_argument("--refused-query", help="a query that must be refused, such as one of another dataset")
    parser.add_argument("--job", action="store_true", help="by jobs.insert, instead of jobs.query")
    options = parser.parse_args()
    report(lambda: act(options))


if __name__ == "__main__":
    main()
