"""An unmodified Snowflake client that logs in with what Cortex minted; runs with the connector of both generations.

The token is read from standard input, so that it stands neither in the process list nor in the environment.
For `workload-identity` against a host of one's own, SNOWFLAKE_WIF_ALLOWED_HOST_SUFFIXES must name that host.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from report import report

TIMEOUT = 20


def connector_login(options: argparse.Namespace, token: str) -> dict[str, Any]:
    import snowflake.connector

    how: dict[str, Any] = {"authenticator": "oauth"}
    if options.method == "workload-identity":
        how = {"authenticator": "WORKLOAD_IDENTITY", "workload_identity_provider": "OIDC"}
    arguments = {
        "account": options.account,
        "user": options.user,
        "role": options.role,
        "host": options.host,
        "port": options.port,
        "protocol": options.protocol,
        "login_timeout": TIMEOUT,
        "network_timeout": TIMEOUT,
    }
    given = {name: value for name, value in arguments.items() if value is not None}
    with snowflake.connector.connect(**given, **how, token=token) as connection, connection.cursor() as cursor:
        return {
            "rows": cursor.execute(options.query).fetchall(),
            "session_id": connection.session_id,
            "connector": snowflake.connector.__version__,
        }


def sql_api_query(options: argparse.Namespace, token: str) -> dict[str, Any]:
    import requests

    port = f":{options.port}" if options.port else ""
    answer = requests.post(
        f"{options.protocol or 'https'}://{options.host}{port}/api/v2/statements",
        headers={
            "Authorization": f"Bearer {token}",
            "X-Snowflake-Authorization-Token-Type": options.token_type,
            "Accept": "application/json",
        },
        json={"statement": options.query, "timeout": TIMEOUT, **({"role": options.role} if options.role else {})},
        timeout=TIMEOUT,
    )
    body = answer.json()
    if answer.status_code != requests.codes.ok:
        raise PermissionError(f"{answer.status_code} {body.get('code')}: {body.get('message')}")
    return {"rows": body["data"], "handle": body.get("statementHandle")}


def act(options: argparse.Namespace, token: str) -> dict[str, Any]:
    try:
        return sql_api_query(options, token) if options.method == "sql-api" else connector_login(options, token)
    except Exception as error:
        if getattr(error, "errno", None) is not None:
            # The server's code, such as 390318 for an expired token, is what tells refusals apart.
            error.args = (f"{error.errno}: {error}",)  # type: ignore[attr-defined]
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=["oauth", "workload-identity", "sql-api"], required=True)
    parser.add_argument("--token-type", choices=["KEYPAIR_JWT", "OAUTH"], default="KEYPAIR_JWT", help="for sql-api")
    parser.add_argument("--account", required=True)
    parser.add_argument("--user")
    parser.add_argument("--role")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--protocol", choices=["http", "https"])
    parser.add_argument("--query", default="SELECT CURRENT_ROLE()")
    options = parser.parse_args()
    token = sys.stdin.read().strip()
    report(lambda: act(options, token))


if __name__ == "__main__":
    main()
