from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from support.broker import Broker, refused
from support.task import running

from cortex_provider import connections
from cortex_provider.compat import AIRFLOW_3, AccessDenied, BaseSecretsBackend, Connection
from cortex_provider.errors import NotConfigured
from cortex_provider.secrets import CortexBackend

MakeBackend = Callable[..., CortexBackend]
AWS = "cortex_first_steps__aws"


class Vault(BaseSecretsBackend):
    """A backend of another package."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host

    def get_connection(self, conn_id: str, team_name: str | None = None) -> Connection:
        return Connection(conn_id=conn_id, conn_type="http", host=self.host)

    def get_variable(self, key: str, team_name: str | None = None) -> str:
        return f"{key} of {self.host}"

    def get_config(self, key: str) -> str:
        return f"{key} of {self.host}"


@pytest.mark.usefixtures("task")
def test_lookups_in_a_task_share_one_exchange(broker: Broker, backend: MakeBackend) -> None:
    made = backend()
    types = {}
    for target in ("aws", "bigquery", "snowflake", "api"):
        connection = made.get_connection(f"cortex_first_steps__{target}")
        assert connection is not None
        types[target] = connection.conn_type
        # Airflow does this with every connection that a backend gives it.
        connection.get_uri()
    expected = {"aws": "aws", "bigquery": "google_cloud_platform", "snowflake": "snowflake", "api": "http"}
    assert types == expected
    assert len(broker.exchanges) == 1


@pytest.mark.usefixtures("task")
def test_secrets_are_masked_before_they_are_handed_out(broker: Broker, backend: MakeBackend) -> None:
    module = import_module("airflow.sdk.log" if AIRFLOW_3 else "airflow.utils.log.secrets_masker")
    connection = backend().get_connection(AWS)
    assert connection is not None
    extra = json.loads(connection.extra or "{}")
    for secret in (connection.password, extra["aws_session_token"], extra["cortex_renewal"]):
        assert module.redact(f"it is {secret}.") == "it is ***."
    # What nobody was given needs no mask; the masker would keep it for the life of the task.
    other = broker.sent[-1].body["credentials"]["api"]["credential"]["token"]
    assert other in module.redact(f"it is {other}.")


def test_the_reason_of_the_run_goes_along(broker: Broker, backend: MakeBackend) -> None:
    rule = {"policy": "erase", "target": "aws", "reason": "as always"}
    made = backend(connections={"aws_default": rule})
    with running(cortex_reason="ticket 7"):
        made.get_connection("aws_default")
    with running(try_number=2):
        made.get_connection("aws_default")
    assert [request.json()["reason"] for request in broker.exchanges] == ["ticket 7", "as always"]


@pytest.mark.usefixtures("task")
def test_what_is_not_ours_is_left_to_airflow(broker: Broker, backend: MakeBackend) -> None:
    made = backend()
    assert made.get_connection("aws_default") is None
    assert made.get_variable("x") is None
    assert made.get_config("x") is None
    assert made.get_conn_value(AWS) is None
    assert not broker.requests


@pytest.mark.usefixtures("task")
def test_or_to_the_backend_behind_it(broker: Broker, backend: MakeBackend) -> None:
    behind = backend(fallback=f"{__name__}.Vault", fallback_kwargs={"host": "vault.example.com"})
    found = behind.get_connection("aws_default", team_name="finance")
    assert found is not None and found.host == "vault.example.com"
    assert behind.get_variable("x") == "x of vault.example.com"
    assert behind.get_config("x") == "x of vault.example.com"
    # An ID token is for the API server to give, whatever stands in the Vault.
    assert behind.get_variable("cortex_id_token.cortex") is None
    ours = behind.get_connection(AWS)
    assert ours is not None and ours.conn_type == "aws"


def test_a_backend_that_cannot_be_had_is_a_fault(backend: MakeBackend) -> None:
    with pytest.raises(NotConfigured, match="cannot be imported"):
        backend(fallback="no.such.Backend")


@pytest.mark.usefixtures("task")
def test_a_denial_is_final_and_says_why(broker: Broker, backend: MakeBackend, caplog: pytest.LogCaptureFixture) -> None:
    broker.answer = lambda request: refused("invalid_target", "only between 01:00 and 05:00")
    with pytest.raises(AccessDenied, match="only between 01:00 and 05:00"):
        backend().get_connection(AWS)
    assert "only between 01:00 and 05:00" in caplog.text


def test_outside_a_task_ours_are_refused(broker: Broker, backend: MakeBackend) -> None:
    with pytest.raises(AccessDenied, match="inside a running task only"):
        backend().get_connection(AWS)
    assert not broker.requests


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("conn_id", ["cortex_", "cortex_UPPER", "cortex_x__"])
def test_an_id_of_ours_that_cannot_be_is_refused(backend: MakeBackend, conn_id: str) -> None:
    with pytest.raises(AccessDenied, match="connection id"):
        backend().get_connection(conn_id)


@pytest.mark.usefixtures("task")
def test_a_fault_of_this_package_is_a_refusal_too(
    backend: MakeBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("a secret that it stumbled over")

    caplog.set_level(logging.INFO)
    monkeypatch.setitem(connections.BUILDERS, "aws", broken)
    with pytest.raises(AccessDenied, match="unexpected ValueError") as caught:
        backend().get_connection(AWS)
    assert "stumbled" not in str(caught.value)
    assert "stumbled" not in caplog.text


@pytest.mark.usefixtures("task")
def test_a_target_without_a_connection_type_is_refused(backend: MakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(connections.BUILDERS, "api")
    with pytest.raises(AccessDenied, match="no connection type for api"):
        backend().get_connection("cortex_first_steps__api")


@pytest.mark.usefixtures("task")
def test_an_event_loop_goes_on_meanwhile(broker: Broker, backend: MakeBackend) -> None:
    async def both() -> tuple[Any, int]:
        looked_up = asyncio.create_task(backend().aget_connection(AWS))
        ticks = 0
        while not looked_up.done():
            await asyncio.sleep(0)
            ticks += 1
        return await looked_up, ticks

    connection, ticks = asyncio.run(both())
    assert connection.conn_type == "aws"
    assert ticks > 1


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 finds connections elsewhere")
@pytest.mark.usefixtures("task")
def test_airflow_itself_stops_at_a_denial(
    broker: Broker, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import BaseHook

    configure(monkeypatch, "WORKERS__SECRETS_BACKEND", kwargs)
    # What Airflow would find if it went on.
    monkeypatch.setenv(f"AIRFLOW_CONN_{AWS.upper()}", "aws://ambient:credentials@")
    assert str(BaseHook.get_connection(AWS).login).startswith("ASIATEST")
    broker.answer = lambda request: refused("invalid_target", "this DAG is not named")
    with running(try_number=2), pytest.raises(AccessDenied, match="this DAG is not named"):
        BaseHook.get_connection(AWS)


@pytest.mark.skipif(not AIRFLOW_3, reason="needs Airflow 3")
def test_a_stock_hook_does_not_go_on_with_ambient_credentials(
    broker: Broker, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    base_aws = pytest.importorskip("airflow.providers.amazon.aws.hooks.base_aws")
    configure(monkeypatch, "WORKERS__SECRETS_BACKEND", {**kwargs, "connections": {"aws_default": {"policy": "x"}}})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AMBIENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")
    hook = base_aws.AwsGenericHook(aws_conn_id="aws_default", client_type="s3")
    broker.answer = lambda request: refused("invalid_target", "this DAG is not named")
    with running(), pytest.raises(AccessDenied, match="this DAG is not named"):
        hook.get_session()


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 has an exception of its own for it")
@pytest.mark.usefixtures("task")
def test_airflow_2_stops_at_a_denial_too(
    broker: Broker, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models import Connection as Model

    backend = CortexBackend(**kwargs)
    monkeypatch.setattr("airflow.models.connection.ensure_secrets_loaded", lambda: [backend, Vault("ambient")])
    found = Model.get_connection_from_secrets(AWS)
    assert str(found.login).startswith("ASIATEST")
    assert Model.get_connection_from_secrets("aws_default").host == "ambient"
    broker.answer = lambda request: refused("invalid_target", "this DAG is not named")
    with running(try_number=2), pytest.raises(AccessDenied, match="this DAG is not named"):
        Model.get_connection_from_secrets(AWS)


def configure(monkeypatch: pytest.MonkeyPatch, option: str, kwargs: dict[str, Any]) -> None:
    """Configures the backend as an administrator would, and has Airflow load it anew."""
    from airflow.sdk import configuration

    monkeypatch.setenv(f"AIRFLOW__{option}", "cortex_provider.secrets.CortexBackend")
    monkeypatch.setenv(f"AIRFLOW__{option}_KWARGS", json.dumps(kwargs))
    # Airflow 3.2 keeps none.
    getattr(configuration, "clear_secrets_backends_cache", lambda: None)()
