from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.broker import Broker, refused
from support.task import running

from cortex_provider import leases as leases_module
from cortex_provider.client import Ask
from cortex_provider.connections.aws import RENEWAL_EXTRA
from cortex_provider.errors import Refused
from cortex_provider.leases import Leases
from cortex_provider.renewal import loopback, registry
from cortex_provider.run import Run
from cortex_provider.secrets import CortexBackend

RUN = Run("dag", "run", "task", instance_id="0190")
ASK = Ask("first-steps")
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
MakeLeases = Callable[..., Leases]
MakeBackend = Callable[..., CortexBackend]


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"user:{key}".encode()).decode()}


def due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "RENEW_BELOW", 2.0)


def test_the_endpoint_gives_what_the_task_holds(broker: Broker, leases: MakeLeases) -> None:
    held = leases()
    renewal = registry.renewal_for(held, RUN, ASK, "snowflake")
    assert registry.renewal_for(held, RUN, Ask("first-steps", "a reason"), "snowflake") is renewal
    form = {"grant_type": "client_credentials"}
    answers = [httpx.post(loopback.url("/token"), data=form, headers=basic(renewal.key)) for _ in range(3)]
    tokens = {answer.json()["access_token"] for answer in answers}
    assert tokens == {held.credential(RUN, ASK, "snowflake").secrets["token"]}
    assert 890 <= answers[0].json()["expires_in"] <= 900
    assert answers[0].headers["cache-control"] == "no-store"
    assert len(broker.exchanges) == 1


@pytest.mark.parametrize(
    ("path", "form", "headers"),
    [
        ("/token", {"grant_type": "client_credentials"}, {}),
        ("/token", {"grant_type": "client_credentials"}, basic("guessed")),
        ("/token", {"grant_type": "client_credentials"}, {"Authorization": "Basic !"}),
        ("/token", {"grant_type": EXCHANGE, "subject_token": "guessed"}, {}),
        ("/token", {"grant_type": EXCHANGE}, {}),
        ("/token", {"grant_type": "password"}, {}),
        ("/elsewhere", {"grant_type": "client_credentials"}, {}),
    ],
)
def test_nobody_else_gets_anything(broker: Broker, path: str, form: dict[str, str], headers: dict[str, str]) -> None:
    assert httpx.post(loopback.url(path), data=form, headers=headers).status_code == 401
    assert not broker.requests


def test_the_endpoint_listens_to_this_machine_only_and_is_no_oracle(leases: MakeLeases) -> None:
    assert loopback.url("/x").startswith("http://127.0.0.1:")
    assert httpx.get(loopback.url("/subject"), headers={"Authorization": "Bearer guessed"}).status_code == 401
    assert httpx.get(loopback.url("/subject")).status_code == 401
    aws = registry.renewal_for(leases(), RUN, ASK, "aws")
    form = {"grant_type": "client_credentials"}
    assert httpx.post(loopback.url("/token"), data=form, headers=basic(aws.key)).status_code == 401
    huge = {"grant_type": "client_credentials", "x": "y" * loopback.BODY_MAX}
    assert httpx.post(loopback.url("/token"), data=huge, headers=basic(aws.key)).status_code == 401


def test_a_refusal_is_passed_on_and_logged(
    broker: Broker, leases: MakeLeases, caplog: pytest.LogCaptureFixture
) -> None:
    renewal = registry.renewal_for(leases(), RUN, ASK, "api")
    broker.answer = lambda request: refused("invalid_target", "the policy was withdrawn")
    answer = httpx.post(loopback.url("/token"), data={"grant_type": "client_credentials"}, headers=basic(renewal.key))
    assert answer.status_code == 400
    assert "withdrawn" in answer.json()["error_description"]
    assert "withdrawn" in caplog.text
    assert renewal.key not in caplog.text
    assert renewal.key not in repr(renewal)


def test_a_proxy_never_sees_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(loopback, "_running", None)
    loopback.url("/")
    assert os.environ["no_proxy"] == "localhost,127.0.0.1"
    assert os.environ["NO_PROXY"] == "127.0.0.1"


def test_a_child_has_an_endpoint_of_its_own(broker: Broker, leases: MakeLeases) -> None:
    parent = loopback.url("/token")
    renewal = registry.renewal_for(leases(), RUN, ASK, "api")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            url, form = loopback.url("/token"), {"grant_type": "client_credentials"}
            status = httpx.post(url, data=form, headers=basic(renewal.key)).status_code
            os.write(write, f"{url != parent} {status}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "True 200"
    os.waitpid(child, 0)


@pytest.mark.usefixtures("task")
def test_google_auth_renews_by_itself(broker: Broker, backend: MakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = pytest.importorskip("google.auth")
    transport = pytest.importorskip("google.auth.transport.requests")
    connection = backend().get_connection("cortex_first_steps__bigquery")
    assert connection is not None
    info = connection.extra_dejson["credential_config_file"]
    credentials, _ = auth.load_credentials_from_dict(info, scopes=["https://www.googleapis.com/auth/bigquery"])
    tokens = []
    for _ in range(2):
        credentials.refresh(transport.Request())
        tokens.append(credentials.token)
    assert tokens[0] == tokens[1] and tokens[0].startswith("google-token")
    assert len(broker.exchanges) == 1
    due_at_once(monkeypatch)
    credentials.refresh(transport.Request())
    assert credentials.token != tokens[0]
    broker.answer = lambda request: refused("invalid_target", "the policy was withdrawn")
    with pytest.raises(Exception, match="withdrawn"):
        credentials.refresh(transport.Request())


@pytest.mark.usefixtures("task")
def test_the_snowflake_hook_renews_by_itself(
    broker: Broker, backend: MakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("airflow.providers.snowflake.hooks.snowflake")
    made = backend()
    monkeypatch.setattr("airflow.sdk.bases.hook.BaseHook.get_connection", made.get_connection)
    tokens = []
    for _ in range(2):
        parameters = module.SnowflakeHook(snowflake_conn_id="cortex_first_steps__snowflake")._get_conn_params()
        tokens.append(parameters["token"])
        assert parameters["account"] == "acme-prod"
        assert "user" not in parameters
        due_at_once(monkeypatch)
    assert tokens[0].startswith("snowflake-token")
    assert tokens[0] != tokens[1]


@pytest.fixture
def factory(backend: MakeBackend, task: dict[str, Any]) -> Any:
    """The session factory for a connection of Cortex."""
    pytest.importorskip("airflow.providers.amazon.aws.hooks.base_aws")
    from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper

    from cortex_provider.renewal.aws import CortexSessionFactory

    connection = backend().get_connection("cortex_first_steps__aws")
    return CortexSessionFactory(conn=AwsConnectionWrapper(conn=connection))


def test_aws_sessions_renew_themselves(broker: Broker, factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = factory.create_session().get_credentials()
    first = credentials.get_frozen_credentials()
    assert credentials.get_frozen_credentials() == first
    assert first.access_key == factory.conn.login
    assert len(broker.exchanges) == 1
    due_at_once(monkeypatch)
    monkeypatch.setattr(credentials, "_advisory_refresh_timeout", 10_000)
    assert credentials.get_frozen_credentials().access_key != first.access_key
    broker.answer = lambda request: refused("invalid_target", "the policy was withdrawn")
    monkeypatch.setattr(credentials, "_mandatory_refresh_timeout", 10_000)
    with pytest.raises(Refused, match="withdrawn"):
        credentials.get_frozen_credentials()


def test_a_short_session_is_not_renewed_from_its_first_call_on(broker: Broker, factory: Any) -> None:
    credentials = factory.create_session().get_credentials()
    assert 260 <= credentials._advisory_refresh_timeout <= 270
    assert 130 <= credentials._mandatory_refresh_timeout <= 135
    assert not credentials.refresh_needed()


def test_asynchronous_sessions_renew_themselves_too(
    broker: Broker, factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keys() -> tuple[str, str]:
        credentials = await factory.create_session(deferrable=True).get_credentials()
        first = (await credentials.get_frozen_credentials()).access_key
        due_at_once(monkeypatch)
        credentials._advisory_refresh_timeout = credentials._mandatory_refresh_timeout = 10_000
        return first, (await credentials.get_frozen_credentials()).access_key

    first, second = asyncio.run(keys())
    assert first == factory.conn.login
    assert first != second


def test_other_aws_connections_are_left_to_airflow(broker: Broker, factory: Any) -> None:
    from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper

    from cortex_provider.compat import Connection
    from cortex_provider.renewal.aws import CortexSessionFactory

    for extra in ("{}", f'{{"{RENEWAL_EXTRA}": "guessed"}}'):
        connection = Connection(conn_id="other", conn_type="aws", login="AKIA", password="x", extra=extra)
        session = CortexSessionFactory(conn=AwsConnectionWrapper(conn=connection)).create_session()
        assert type(session.get_credentials()).__name__ == "Credentials"
    assert CortexSessionFactory(conn=AwsConnectionWrapper(conn=None)).create_session() is not None


def test_a_renewal_works_for_the_task_that_it_was_made_for(broker: Broker, leases: MakeLeases) -> None:
    renewal = registry.renewal_for(leases(), RUN, ASK, "aws")
    first = renewal.credential()
    with running("another_task"):
        assert renewal.credential() == first
