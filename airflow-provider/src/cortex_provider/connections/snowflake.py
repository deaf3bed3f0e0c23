"""Snowflake: External OAuth with a token endpoint in this process, or a workload identity's token."""

from __future__ import annotations

from cortex_provider.client import Credential
from cortex_provider.connections.fields import Fields
from cortex_provider.errors import Refused
from cortex_provider.renewal import loopback
from cortex_provider.renewal.registry import Renewal
from cortex_provider.settings import ConnectionRule


def fields(credential: Credential, rule: ConnectionRule, renewal: Renewal) -> Fields:
    """A connection of type `snowflake`; raises `Refused` for a method that Airflow's hook cannot use."""
    details = credential.details
    method = str(details.get("authenticator", "")).lower()
    names = {name: details[name] for name in ("account", "role", "host") if details.get(name)}
    user = str(details.get("user") or "cortex")
    if method == "oauth":
        # The hook keeps the token until it ends, and then asks the endpoint again.
        endpoint = {"grant_type": "client_credentials", "token_endpoint": loopback.url("/token")}
        extra = {**names, "authenticator": "oauth", **endpoint}
        return Fields(conn_type="snowflake", login=user, password=renewal.key, extra=extra)
    if method == "workload_identity":
        token = {"workload_identity_provider": "OIDC", "token": credential.secrets["token"]}
        return Fields(conn_type="snowflake", login=user, extra={**names, "authenticator": "WORKLOAD_IDENTITY", **token})
    raise Refused(
        "invalid_target",
        f"SnowflakeHook cannot use a token of the method {method or 'unknown'}; let policy {credential.policy} say "
        "`method: oauth` or `method: workload-identity`",
    )
