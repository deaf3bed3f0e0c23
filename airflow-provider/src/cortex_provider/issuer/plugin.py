"""What Airflow loads, through the entry point `airflow.plugins`. Only its API server serves the parts."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from cortex_provider.issuer.documents import IssuerDocuments
from cortex_provider.issuer.endpoint import IdTokenEndpoint
from cortex_provider.issuer.keys import KeyRing, load_keys
from cortex_provider.issuer.settings import PREFIX

_keys = KeyRing(load_keys)
_apps = [{"app": IssuerDocuments(_keys), "url_prefix": PREFIX, "name": "Cortex issuer"}]
_middlewares = [{"middleware": IdTokenEndpoint, "args": [], "kwargs": {"keys": _keys}, "name": "Cortex ID tokens"}]


class CortexIssuerPlugin(AirflowPlugin):
    """Makes the API server the OIDC issuer of its running tasks."""

    name = "cortex_issuer"
    fastapi_apps = _apps
    fastapi_root_middlewares = _middlewares
