from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from support.broker import TOKEN, Answer, Broker

from cortex_provider.compat import AIRFLOW_3
from cortex_provider.errors import NoIdentity, Unavailable
from cortex_provider.identity import TokenSource, token_source
from cortex_provider.run import Run
from cortex_provider.settings import Settings

RUN = Run("dag", "run", "task", 2, 3, run_type="manual", triggering_user_name="ada")


def source(**kwargs: Any) -> TokenSource:
    return token_source(Settings.parse({"url": "https://cortex.example.com", "timeout": 5, **kwargs}))


def test_a_file_is_read_anew_each_time(token_file: Path) -> None:
    tokens = source(identity="file", token_file=str(token_file))
    assert tokens.token(RUN) == TOKEN
    token_file.write_text("a.b.c\n")
    assert tokens.token(RUN) == "a.b.c"
    assert tokens.claim(RUN) is None


@pytest.mark.parametrize("content", ["", "no token", "a.b", "a.b.c\nd", "a.b." + "c" * 20_000, "a.b.é"])
def test_a_file_without_a_token(token_file: Path, content: str) -> None:
    token_file.write_text(content)
    with pytest.raises(NoIdentity) as caught:
        source(identity="file", token_file=str(token_file)).token(RUN)
    assert not content or content not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoIdentity, match="FileNotFoundError"):
        source(identity="file", token_file=str(tmp_path / "none")).token(RUN)


def test_a_service_claims_the_run(broker: Broker, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    broker.routes["/oauth/token"] = lambda request: Answer(200, {"access_token": TOKEN, "expires_in": 60})
    tokens = source(
        identity="client_credentials",
        token_url=f"{broker.url}/oauth/token",
        client_id="airflow",
        client_secret_file=str(secret),
        scope="cortex",
    )
    assert tokens.token(RUN) == TOKEN
    request = broker.requests[0]
    assert request.form() == {"grant_type": "client_credentials", "scope": "cortex"}
    assert base64.b64decode(request.headers["authorization"].split()[1]) == b"airflow:s3cret"
    expected = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": 2, "try_number": 3}
    assert tokens.claim(RUN) == expected


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(401, {"error": "invalid_client"}), "HTTP 401 .invalid_client"),
        (Answer(200, {"access_token": "opaque"}), "not a token"),
        (Answer(200, []), "HTTP 200"),
        (Answer(302, {}, {"Location": "https://elsewhere.example.com"}), "HTTP 302"),
    ],
)
def test_a_provider_that_gives_no_token(broker: Broker, tmp_path: Path, answer: Answer, said: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    broker.routes["/token"] = lambda request: answer
    url = f"{broker.url}/token"
    tokens = source(identity="client_credentials", token_url=url, client_id="airflow", client_secret_file=str(secret))
    with pytest.raises(NoIdentity, match=said) as caught:
        tokens.token(RUN)
    assert "s3cret" not in str(caught.value)


def test_the_development_issuer_is_told_the_run(broker: Broker) -> None:
    broker.routes["/token"] = lambda request: Answer(200, {"token": TOKEN})
    tokens = source(identity="development", issuer_url=broker.url)
    assert tokens.token(RUN) == TOKEN
    body = broker.requests[0].json()
    assert body["audience"] == "cortex"
    assert body["run"] == {**RUN.claim(), "run_type": "manual", "triggering_user_name": "ada"}
    broker.stop()
    with pytest.raises(Unavailable):
        tokens.token(RUN)


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 is no issuer")
def test_airflows_issuer_answers_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoIdentity, match="gave no ID token"):
        source().token(RUN)
    monkeypatch.setenv("AIRFLOW_VAR_CORTEX_ID_TOKEN.FINANCE", TOKEN)
    assert source(audience="finance").token(RUN) == TOKEN
