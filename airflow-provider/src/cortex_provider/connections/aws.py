"""AWS: session keys, which `CortexSessionFactory` renews and every AWS hook takes as they are."""

from __future__ import annotations

from cortex_provider.client import Credential
from cortex_provider.connections.fields import Fields
from cortex_provider.renewal.registry import Renewal
from cortex_provider.settings import ConnectionRule

#: The extra that leads `CortexSessionFactory` to the renewal.
RENEWAL_EXTRA = "cortex_renewal"


def fields(credential: Credential, rule: ConnectionRule, renewal: Renewal) -> Fields:
    """A connection of type `aws`."""
    region = credential.details.get("region")
    return Fields(
        conn_type="aws",
        login=credential.secrets["access_key_id"],
        password=credential.secrets["secret_access_key"],
        defaults={"region_name": region} if region else {},
        extra={"aws_session_token": credential.secrets["session_token"], RENEWAL_EXTRA: renewal.key},
    )
