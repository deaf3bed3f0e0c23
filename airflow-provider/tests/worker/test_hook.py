from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from support.broker import Answer, Broker

from cortex_provider.compat import Connection
from cortex_provider.errors import NoIdentity, NotConfigured
from cortex_provider.form import FORM
from cortex_provider.hooks.cortex import CortexHook
from cortex_provider.links.issuances import CortexIssuancesLink
from cortex_provider.settings import Settings


@pytest.fixture
def hook(broker: Broker, token_file: Any, monkeypatch: pytest.MonkeyPatch) -> CortexHook:
    """A hook with a connection of its own."""
    extra = json.dumps({"identity": "file", "token_file": str(token_file), "audience": "", "ca_file": None})
    connection = Connection(conn_id="cortex", conn_type="cortex", host=broker.url, extra=extra)
    monkeypatch.setattr(CortexHook, "get_connection", lambda self, conn_id: connection)
    return CortexHook("cortex")


@pytest.mark.usefixtures("task")
def test_a_task_may_ask_itself(broker: Broker, hook: CortexHook) -> None:
    credentials = hook.credentials("first-steps", reason="because", ttl_seconds=600)
    assert set(credentials) == {"aws", "bigquery", "snowflake", "api"}
    assert broker.exchanges[0].json() == {"policy": "first-steps", "reason": "because", "ttl_seconds": 600}
    assert hook.credentials("first-steps", ttl_seconds=600) == credentials
    assert len(broker.exchanges) == 1


def test_outside_a_task_it_gets_nothing(hook: CortexHook) -> None:
    with pytest.raises(NoIdentity):
        hook.credentials("first-steps")


def test_without_a_connection_it_uses_the_workers_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured):
        _ = CortexHook().settings
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND", "cortex_provider.secrets.CortexBackend")
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS", '{"url": "https://cortex.example.com"}')
    assert CortexHook().settings.url == "https://cortex.example.com"


def test_its_test_names_the_fault(broker: Broker, hook: CortexHook) -> None:
    assert hook.test_connection() == (False, f"Cortex at {broker.url} is not ready: HTTP 404")
    broker.routes["/readyz"] = lambda request: Answer(200, {})
    assert hook.test_connection()[0]
    wrong = {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    broker.routes["/readyz"] = lambda request: Answer(200, {}, wrong)
    passed, said = hook.test_connection()
    assert not passed and "off its clock" in said
    broker.stop()
    passed, said = hook.test_connection()
    assert not passed and "cannot be reached" in said


def test_its_test_looks_at_airflows_issuer(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CortexHook, "settings", Settings.parse({"url": broker.url}))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"{broker.url}/airflow/")
    broker.routes["/readyz"] = lambda request: Answer(200, {})
    hook = CortexHook()
    passed, said = hook.test_connection()
    assert not passed and "is the plugin loaded" in said
    issuer = f"{broker.url}/airflow/cortex-oidc"
    path = "/airflow/cortex-oidc/.well-known/openid-configuration"
    broker.routes[path] = lambda request: Answer(200, {"issuer": "https://elsewhere.example.com"})
    passed, said = hook.test_connection()
    assert not passed and "calls itself https://elsewhere.example.com" in said
    broker.routes[path] = lambda request: Answer(200, {"issuer": issuer})
    passed, said = hook.test_connection()
    assert passed and issuer in said


def test_the_form_asks_for_settings() -> None:
    assert set(FORM) <= set(Settings.__dataclass_fields__)
    assert "host" in CortexHook.get_ui_field_behaviour()["relabeling"]


def test_a_link_leads_to_the_tasks_issuances(monkeypatch: pytest.MonkeyPatch) -> None:
    key: Any = SimpleNamespace(dag_id="d", run_id="manual__2026-01-01T00:00:00+00:00", task_id="t")
    operator: Any = SimpleNamespace(cortex_conn_id=None)
    assert CortexIssuancesLink().get_link(operator, ti_key=key) == ""
    monkeypatch.setattr(CortexHook, "settings", Settings.parse({"url": "https://cortex.example.com/"}))
    link = CortexIssuancesLink().get_link(operator, ti_key=key)
    query = "dag_id=d&run_id=manual__2026-01-01T00%3A00%3A00%2B00%3A00&task_id=t"
    assert link == f"https://cortex.example.com/console/issuances?{query}"
