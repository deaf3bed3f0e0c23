"""AWS sessions that renew themselves: `[aws] session_factory = cortex_provider.renewal.aws.CortexSessionFactory`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import boto3.session
import botocore.session
from airflow.providers.amazon.aws.hooks.base_aws import BaseSessionFactory
from botocore.credentials import RefreshableCredentials

from cortex_provider.client import Credential
from cortex_provider.connections.aws import RENEWAL_EXTRA
from cortex_provider.leases import renew_at
from cortex_provider.renewal import registry

if TYPE_CHECKING:
    from aiobotocore.credentials import AioRefreshableCredentials
    from aiobotocore.session import AioSession

#: Below this part of the time before its end at which a credential is renewed, a call waits for the renewal; until
#: then botocore goes on with what it has when the renewal fails.
MANDATORY_PART = 0.5


class CortexSessionFactory(BaseSessionFactory):
    """Makes the sessions of all AWS hooks; those of Cortex's connections fetch fresh keys when theirs near the end.

    A connection that is not Cortex's, or that assumes a role with Cortex's keys, is left to Airflow.
    """

    def create_session(self, deferrable: bool = False) -> boto3.session.Session | AioSession:
        """A boto3 session, or an aiobotocore one where `deferrable`; raises `CortexError` if a renewal is refused."""
        renewal = registry.find(str(self.extra_config.get(RENEWAL_EXTRA, ""))) if self.conn else None
        if renewal is None or self.role_arn:
            return super().create_session(deferrable)
        if deferrable:
            session: AioSession = self.get_async_session()  # type: ignore[no-untyped-call]
            session._credentials = _async_credentials(renewal)
        else:
            session = botocore.session.get_session()
            session._credentials = _credentials(renewal)
        if self.region_name:
            session.set_config_variable("region", self.region_name)
        return session if deferrable else boto3.session.Session(botocore_session=session)


def _credentials(renewal: registry.Renewal) -> RefreshableCredentials:
    held = renewal.credential()
    return RefreshableCredentials.create_from_metadata(
        metadata=_metadata(held),
        refresh_using=lambda: _metadata(renewal.credential()),
        method="cortex",
        **_timeouts(held),
    )


def _async_credentials(renewal: registry.Renewal) -> AioRefreshableCredentials:
    from aiobotocore.credentials import AioRefreshableCredentials

    async def refresh() -> dict[str, str]:
        return _metadata(await asyncio.to_thread(renewal.credential))

    held = renewal.credential()
    credentials = AioRefreshableCredentials.create_from_metadata(
        metadata=_metadata(held), refresh_using=refresh, method="cortex"
    )
    # Its constructor takes no timeouts.
    timeouts = _timeouts(held)
    credentials._advisory_refresh_timeout = timeouts["advisory_timeout"]
    credentials._mandatory_refresh_timeout = timeouts["mandatory_timeout"]
    return credentials


def _timeouts(credential: Credential) -> dict[str, int]:
    # botocore would begin 15 minutes before the end, which is the whole life of a short session.
    advisory = renew_at(credential.remaining())
    return {"advisory_timeout": int(advisory), "mandatory_timeout": int(advisory * MANDATORY_PART)}


def _metadata(credential: Credential) -> dict[str, str]:
    return {
        "access_key": credential.secrets["access_key_id"],
        "secret_key": credential.secrets["secret_access_key"],
        "token": credential.secrets["session_token"],
        "expiry_time": credential.expires_at.isoformat(),
    }
