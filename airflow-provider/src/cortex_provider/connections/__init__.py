"""A credential as a connection that existing hooks understand: one module for each kind of target."""

from __future__ import annotations

import json

from cortex_provider import compat
from cortex_provider.client import Credential
from cortex_provider.connections import aws, google, http, snowflake
from cortex_provider.connections.fields import Builder, Fields
from cortex_provider.errors import Refused
from cortex_provider.renewal.registry import Renewal
from cortex_provider.settings import ConnectionRule

BUILDERS: dict[str, Builder] = {
    "aws": aws.fields,
    "bigquery": google.fields,
    "snowflake": snowflake.fields,
    "api": http.fields,
}


def connection(conn_id: str, rule: ConnectionRule, credential: Credential, renewal: Renewal) -> compat.Connection:
    """The Airflow connection that carries `credential`; what `rule` says besides is filled in."""
    builder = BUILDERS.get(credential.target)
    if builder is None:
        raise Refused(
            "invalid_target",
            f"no connection type for {credential.target} credentials; CortexHook.credentials() has them",
        )
    made = builder(credential, rule, renewal)
    return compat.Connection(
        conn_id=conn_id,
        conn_type=made.conn_type,
        host=rule.host or made.host,
        schema=rule.schema or made.schema,
        port=rule.port,
        login=made.login,
        password=made.password,
        # What carries the credential wins over what the rule says: a rule cannot point it elsewhere.
        extra=json.dumps({**made.defaults, **rule.extra, **made.extra}),
    )


__all__ = ["BUILDERS", "Fields", "connection"]
