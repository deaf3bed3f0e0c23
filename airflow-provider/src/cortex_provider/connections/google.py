"""Google: an external account whose token endpoint is in this process, so that google-auth renews by itself."""

from __future__ import annotations

from cortex_provider.client import Credential
from cortex_provider.connections.fields import Fields
from cortex_provider.renewal import loopback
from cortex_provider.renewal.registry import Renewal
from cortex_provider.settings import ConnectionRule


def fields(credential: Credential, rule: ConnectionRule, renewal: Renewal) -> Fields:
    """A connection of type `google_cloud_platform`.

    Airflow's Google hooks take no bare token, and google-auth renews an `external_account` only by a token exchange
    (RFC 8693). Its exchange is with this process's endpoint, which answers with the credential that the task holds:
    so a task makes one exchange with Cortex, and no ID token leaves this package.
    """
    project = credential.details.get("project")
    return Fields(
        conn_type="google_cloud_platform",
        defaults={"project": project} if project else {},
        extra={
            "credential_config_file": {
                "type": "external_account",
                "audience": f"urn:cortex:{credential.policy}:{credential.target}",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": loopback.url("/token"),
                "credential_source": {
                    "url": loopback.url("/subject"),
                    "headers": {"Authorization": f"Bearer {renewal.key}"},
                },
            }
        },
    )
