"""Cortex for DAG code that wants it explicit."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import httpx

from cortex_provider import compat
from cortex_provider.client import BrokerClient, Credential
from cortex_provider.errors import CortexError, NotConfigured, NotUnderstood
from cortex_provider.leases import Leases, ask_for, leases_for
from cortex_provider.run import current_run
from cortex_provider.settings import Settings, configured

#: How far the clocks of Airflow and Cortex may differ, in seconds: Cortex allows an ID token no more.
SKEW_MAX = 30.0


class CortexHook(compat.BaseHook):
    """Fetches credentials for the running task.

    :param cortex_conn_id: A connection of type `cortex` that says where Cortex is. None: what Airflow's configuration
        says of the worker's secrets backend.
    """

    conn_name_attr = "cortex_conn_id"
    default_conn_name = "cortex"
    conn_type = "cortex"
    hook_name = "Cortex"

    def __init__(self, cortex_conn_id: str | None = None) -> None:
        super().__init__()
        self.cortex_conn_id = cortex_conn_id

    @cached_property
    def settings(self) -> Settings:
        """Where Cortex is and who asks; raises `NotConfigured`."""
        if self.cortex_conn_id is None:
            return configured()
        conn = self.get_connection(self.cortex_conn_id)
        given = {name: value for name, value in conn.extra_dejson.items() if value not in (None, "")}
        return Settings.parse({**given, "url": conn.host})

    def get_conn(self) -> BrokerClient:
        """The client; most callers want `credentials`."""
        return BrokerClient(self.settings.url, self.settings.timeout, self.settings.ca_file)

    def credentials(
        self, policy: str, reason: str | None = None, ttl_seconds: int | None = None
    ) -> dict[str, Credential]:
        """The credentials of all of a policy's targets, by target; held and renewed as those of connections are.

        :param reason: Why, for the approver; the run's param takes precedence.
        :param ttl_seconds: A shorter life than the policy's, in seconds.
        :raises CortexError: with the sentence that says why not.
        """
        ask = ask_for(self.settings, policy, reason, ttl_seconds)
        return self.leases.bundle(current_run(), ask)

    @property
    def leases(self) -> Leases:
        """What this process holds under the hook's settings."""
        return leases_for(self.settings)

    def test_connection(self) -> tuple[bool, str]:
        """Checks each link that can be checked without a running task, and names the fault."""
        try:
            ahead = self.get_conn().ready()
            if ahead is not None and abs(ahead) > SKEW_MAX:
                return False, f"Cortex answers, but this clock is {ahead:+.0f} s off its clock: set both by NTP"
            return True, f"Cortex at {self.settings.url} is ready. {self._check_issuer()}"
        except CortexError as error:
            return False, str(error)

    def _check_issuer(self) -> str:
        if self.settings.identity not in ("airflow", "development"):
            return f"Identity: {self.settings.identity}, which only a worker can check."
        issuer = (
            self.settings.issuer_url or f"{(compat.configuration('api', 'base_url') or '').rstrip('/')}/cortex-oidc"
        )
        try:
            answer = httpx.get(f"{issuer}/.well-known/openid-configuration", timeout=10, follow_redirects=False)
            found = answer.json().get("issuer") if answer.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
            raise NotUnderstood(f"the issuer {issuer} cannot be read: {type(error).__name__}") from None
        if found is None:
            raise NotUnderstood(f"{issuer} answers HTTP {answer.status_code}: is the plugin loaded and base_url right?")
        if found != issuer:
            raise NotUnderstood(f"{issuer} calls itself {found}: let [api] base_url be the address that Cortex knows")
        return f"The issuer {issuer} publishes its keys."

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Which of the connection form's own fields are used."""
        return {
            "hidden_fields": ["schema", "port", "login", "password"],
            "relabeling": {"host": "Address of Cortex"},
            "placeholders": {"host": "https://cortex.example.com"},
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The form's further fields on Airflow 2; Airflow 3 reads them from the provider's description."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import StringField

        return {name: StringField(label, widget=BS3TextFieldWidget()) for name, label in FORM.items()}


#: The fields of the connection form, each the name of a setting.
FORM = {
    "audience": "Audience of ID tokens",
    "identity": "Identity (airflow, file, client_credentials, development)",
    "token_file": "Token file (identity file)",
    "token_url": "Token endpoint (identity client_credentials)",
    "client_id": "Client id (identity client_credentials)",
    "client_secret_file": "File with the client's secret (identity client_credentials)",
    "issuer_url": "Development issuer (identity development)",
    "ca_file": "Certificates that vouch for Cortex",
}


def settings_for(cortex_conn_id: str | None) -> Settings:
    """The settings that an operator works with; raises `NotConfigured`."""
    try:
        return CortexHook(cortex_conn_id).settings
    except CortexError:
        raise
    except Exception as error:
        raise NotConfigured(f"the connection {cortex_conn_id} cannot be read: {error}") from None
