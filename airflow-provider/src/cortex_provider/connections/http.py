"""A private HTTP API: a bearer token in the connection's headers."""

from __future__ import annotations

from cortex_provider.client import Credential
from cortex_provider.connections.fields import Fields
from cortex_provider.renewal.registry import Renewal
from cortex_provider.settings import ConnectionRule


def fields(credential: Credential, rule: ConnectionRule, renewal: Renewal) -> Fields:
    """A connection of type `http`.

    Its host is the token's audience where that is an address, unless the rule names one. HttpHook reads the
    connection anew for each session, which is what renews the token.
    """
    audience = str(credential.details.get("audience") or "")
    return Fields(
        conn_type="http",
        host=audience if audience.startswith("https://") else None,
        extra={"Authorization": f"Bearer {credential.secrets['token']}"},
    )
