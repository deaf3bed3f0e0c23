"""What stock hooks make of the connections, without a change to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.broker import Broker, entry, issued

from cortex_provider.compat import AccessDenied, Connection
from cortex_provider.secrets import CortexBackend

MakeBackend = Callable[..., CortexBackend]


def get(backend: CortexBackend, target: str) -> Connection:
    connection = backend.get_connection(f"cortex_first_steps__{target}")
    assert connection is not None
    return connection


@pytest.mark.usefixtures("task")
def test_an_aws_connection(backend: MakeBackend) -> None:
    connection = get(backend(), "aws")
    extra = connection.extra_dejson
    assert connection.login is not None and connection.login.startswith("ASIATEST")
    assert connection.password is not None and connection.password.startswith("secret-access-key")
    assert extra["aws_session_token"].startswith("session-token")
    assert extra["region_name"] == "eu-west-3"


@pytest.mark.usefixtures("task")
def test_a_rule_adds_and_cannot_take_the_credential_away(backend: MakeBackend) -> None:
    extra = {"region_name": "us-east-1", "endpoint_url": "http://127.0.0.1:1", "aws_session_token": "stolen"}
    rule = {"policy": "first-steps", "target": "aws", "extra": extra, "host": "h", "schema": "s", "port": 7}
    connection = backend(connections={"aws_default": rule}).get_connection("aws_default")
    assert connection is not None
    assert (connection.host, connection.schema, connection.port) == ("h", "s", 7)
    found = connection.extra_dejson
    assert (found["region_name"], found["endpoint_url"]) == ("us-east-1", "http://127.0.0.1:1")
    assert found["aws_session_token"].startswith("session-token")


@pytest.mark.usefixtures("task")
def test_the_http_hook_sends_the_token(backend: MakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    http = pytest.importorskip("airflow.providers.http.hooks.http")
    monkeypatch.setattr(http.HttpHook, "get_connection", backend().get_connection)
    hook = http.HttpHook(method="GET", http_conn_id="cortex_first_steps__api")
    session = hook.get_conn()
    assert hook.base_url == "https://ledger.acme.example"
    assert session.headers["Authorization"].startswith("Bearer api-token")


@pytest.mark.usefixtures("task")
def test_an_audience_that_is_no_address_is_no_host(broker: Broker, backend: MakeBackend) -> None:
    one = entry("api")
    one["credential"]["audience"] = "ledger"
    broker.answer = lambda request: issued("first-steps", api=one)
    assert get(backend(), "api").host is None


@pytest.mark.usefixtures("task")
def test_snowflakes_methods(broker: Broker, backend: MakeBackend) -> None:
    one = entry("snowflake")
    broker.answer = lambda request: issued(request.json()["policy"], snowflake=one)
    oauth = get(backend(), "snowflake")
    assert oauth.extra_dejson["grant_type"] == "client_credentials"
    assert oauth.extra_dejson["token_endpoint"].startswith("http://127.0.0.1:")
    assert one["credential"]["token"] not in str(oauth.extra_dejson)
    one["credential"]["authenticator"] = "WORKLOAD_IDENTITY"
    federated = backend().get_connection("cortex_other__snowflake")
    assert federated is not None
    assert federated.extra_dejson["workload_identity_provider"] == "OIDC"
    assert federated.extra_dejson["token"] == one["credential"]["token"]
    one["credential"]["authenticator"] = "SNOWFLAKE_JWT"
    with pytest.raises(AccessDenied, match="cannot use a token of the method snowflake_jwt"):
        backend().get_connection("cortex_third__snowflake")
