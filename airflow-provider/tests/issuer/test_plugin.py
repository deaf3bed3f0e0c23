"""The plugin, as Airflow takes it in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest

from cortex_provider.issuer.plugin import CortexIssuerPlugin

if TYPE_CHECKING:
    from issuer.conftest import MakeTask


def test_the_api_server_mounts_its_parts(
    tables: None, base_url: str, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow import plugins_manager
    from airflow.api_fastapi.app import init_plugins
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    parts = (CortexIssuerPlugin.fastapi_apps, CortexIssuerPlugin.fastapi_root_middlewares)
    monkeypatch.setattr(plugins_manager, "get_fastapi_plugins", lambda: parts)
    app = FastAPI()
    init_plugins(app)
    client = TestClient(app)
    discovery = client.get("/cortex-oidc/.well-known/openid-configuration").json()
    assert discovery["issuer"] == f"{base_url}/cortex-oidc"
    headers = {"Authorization": f"Bearer {make_task().bearer()}"}
    answer = client.get("/execution/variables/cortex_id_token.cortex", headers=headers)
    assert answer.status_code == 200
    published = client.get("/cortex-oidc/jwks").json()["keys"]
    assert jwt.get_unverified_header(answer.json()["value"])["kid"] in {key["kid"] for key in published}


def test_a_worker_that_loads_it_needs_none_of_the_api_servers_parts(tmp_path: Path) -> None:
    """Airflow loads plugins in each of its processes; and on a worker no key may be made."""
    script = """
import sys
import airflow.plugins_manager
before = set(sys.modules)
import cortex_provider.issuer.plugin
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
assert loaded.isdisjoint({"fastapi", "starlette", "jwt", "cryptography", "sqlalchemy"}), loaded
from cortex_provider.issuer.settings import issuer_keys_folder
assert not issuer_keys_folder().exists()
"""
    with_source = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with_source["AIRFLOW__CORTEX__ISSUER_KEYS_FOLDER"] = str(tmp_path / "keys")
    subprocess.run([sys.executable, "-c", script], check=True, env=with_source, timeout=120)  # noqa: S603
