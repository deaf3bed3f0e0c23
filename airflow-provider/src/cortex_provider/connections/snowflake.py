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
    names = {name: details[name] for name in ("account", "role") if details.get(name)}
    # A private link has an address of its own.
    host = {"host": details["host"]} if details.get("host") else {}
    user = str(details.get("user") or "cortex")
    if method == "oauth":
        # The hook keeps the token until it ends, and then asks the endpoint again.
        endpoint = {"grant_type": "client_credentials", "token_endpoint": loopback.url("/token")}
        extra = {**names, "authenticator": "oauth", **endpoint}
        return Fields(conn_type="snowflake", login=user, password=renewal.key, defaults=host, extra=extra)
    if method == "workload_identity":
        token = {"workload_identity_provider": "OIDC", "token": credential.secrets["token"]}
        extra = {**names, "authenticator": "WORKLOAD_IDENTITY", **token}
        return Fields(conn_type="snowflake", login=user, defaults=host, extra=extra)
    raise Refused(
        "invalid_target",
        f"SnowflakeHook cannot use a token of the method {method or 'unknown'}; let policy {credential.policy} say "
        "`method: oauth` or `method: workload-identity`",
    )
