"""An ID token, asked for as a task does, through Airflow's own Execution API."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from cortex_provider.issuer.errors import Misconfigured
from cortex_provider.issuer.keys import KeyRing
from cortex_provider.issuer.limits import MAX_PER_WINDOW

if TYPE_CHECKING:
    from httpx2 import Response
    from issuer.conftest import MakeTask
    from starlette.testclient import TestClient

ISSUER = "https://airflow.example.com/cortex-oidc"


def ask(server: TestClient, bearer: str, audience: str = "cortex") -> Response:
    path = f"/execution/variables/cortex_id_token.{audience}"
    return server.get(path, headers={"Authorization": f"Bearer {bearer}"})


def verified(server: TestClient, token: str, audience: str = "cortex") -> dict[str, Any]:
    """The claims, verified with nothing but what the issuer publishes."""
    published = jwt.PyJWKSet.from_dict(server.get("/cortex-oidc/jwks").json())
    key = published[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=ISSUER)
    return claims


def message(answer: Response) -> str:
    assert answer.status_code == 403, answer.text
    text: str = answer.json()["detail"]["message"]
    return text


def test_a_running_task_gets_a_token_that_the_published_keys_verify(
    api_server: TestClient, make_task: MakeTask
) -> None:
    task = make_task()
    answer = ask(api_server, task.bearer())
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["key"] == "cortex_id_token.cortex"
    token = answer.json()["value"]
    assert jwt.get_unverified_header(token)["typ"] == "JWT"
    claims = verified(api_server, token)
    assert claims["sub"] == f"airflow:dag:{task.dag_id}:task:publish"
    assert claims["airflow"]["ti_id"] == str(task.id)
    assert claims["exp"] - claims["iat"] == 300
    assert claims["nbf"] == claims["iat"] <= time.time()


def test_each_token_is_another_one(api_server: TestClient, make_task: MakeTask) -> None:
    bearer = make_task().bearer()
    tokens = [verified(api_server, ask(api_server, bearer).json()["value"])["jti"] for _ in range(3)]
    assert len(set(tokens)) == 3


def test_what_the_task_says_in_another_request_is_not_airflows_business(
    api_server: TestClient, make_task: MakeTask
) -> None:
    """Everything else reaches Airflow: also another variable, and a write to ours."""
    headers = {"Authorization": f"Bearer {make_task().bearer()}"}
    other = api_server.get("/execution/variables/greeting", headers=headers)
    assert other.status_code == 404
    assert other.json()["detail"]["reason"] == "not_found"
    written = api_server.put("/execution/variables/cortex_id_token.cortex", headers=headers, json={"value": "forged"})
    assert written.status_code == 201
    assert api_server.get("/execution/variables/cortex_id_token.cortex", headers=headers).json()["value"] != "forged"


def test_a_token_kept_after_the_task_ended_gives_nothing(api_server: TestClient, make_task: MakeTask) -> None:
    task = make_task()
    kept = task.bearer()
    assert ask(api_server, kept).status_code == 200
    task.set(state="success")
    assert "not running, but success" in message(ask(api_server, kept))


def test_a_retry_is_somebody_else(api_server: TestClient, make_task: MakeTask) -> None:
    task = make_task()
    kept = task.bearer()
    task.set(id=uuid.uuid4(), try_number=2)
    assert "there is no task instance" in message(ask(api_server, kept))


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": "workload"},
        {"scope": "admin"},
        {"aud": "apache-airflow"},
        {"exp": 1_000_000_000},
        {"sub": "alice"},
        {"sub": None},
    ],
)
def test_only_an_execution_token_of_a_task_counts(
    api_server: TestClient, make_task: MakeTask, claims: dict[str, Any]
) -> None:
    good = jwt.decode(make_task().bearer(), options={"verify_signature": False})
    bearer = jwt.encode({**good, **claims}, _secret(), algorithm="HS512")
    assert message(ask(api_server, bearer)) == "a valid Execution API token is needed"


@pytest.mark.parametrize("secret", ["another secret, which is of 64 octets or more so that PyJWT is content with it"])
def test_a_token_that_airflow_did_not_sign_counts_for_nothing(
    api_server: TestClient, make_task: MakeTask, secret: str
) -> None:
    good = jwt.decode(make_task().bearer(), options={"verify_signature": False})
    for forged in (jwt.encode(good, secret, algorithm="HS512"), jwt.encode(good, "", algorithm="none")):
        assert message(ask(api_server, forged)) == "a valid Execution API token is needed"


def test_an_id_token_is_no_bearer(api_server: TestClient, make_task: MakeTask) -> None:
    token = ask(api_server, make_task().bearer()).json()["value"]
    assert message(ask(api_server, token)) == "a valid Execution API token is needed"


@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "Bearer", "Bearer ", "Bearer \xe9", "Bearer " + "x" * 9000])
def test_without_a_bearer_nothing_is_given(api_server: TestClient, header: str | None) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    answer = api_server.get("/execution/variables/cortex_id_token.cortex", headers=headers)
    assert message(answer) == "a valid Execution API token is needed"


def test_the_first_authorization_header_counts(api_server: TestClient, make_task: MakeTask) -> None:
    first, second = make_task(), make_task()
    headers = [("Authorization", f"Bearer {one.bearer()}") for one in (first, second)]
    answer = api_server.get("/execution/variables/cortex_id_token.cortex", headers=headers)
    claims = verified(api_server, answer.json()["value"])
    assert claims["airflow"]["ti_id"] == str(first.id)


def test_audiences_are_from_a_list(
    api_server: TestClient, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    bearer = make_task().bearer()
    for audience in ("other", "cortex/x", "cortex%0A", "Cortex"):
        assert "is not in [cortex] issuer_audiences" in message(ask(api_server, bearer, audience))
    monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_AUDIENCES", "cortex, other")
    token = ask(api_server, bearer, "other").json()["value"]
    assert verified(api_server, token, "other")["aud"] == "other"


def test_the_configured_lifetime_is_kept(
    api_server: TestClient, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORTEX__TOKEN_LIFETIME", "60")
    claims = verified(api_server, ask(api_server, make_task().bearer()).json()["value"])
    assert claims["exp"] - claims["iat"] == 60


def test_one_task_instance_asks_only_so_often(api_server: TestClient, make_task: MakeTask) -> None:
    greedy, modest = make_task(), make_task()
    bearer = greedy.bearer()
    for _ in range(MAX_PER_WINDOW):
        # Refused ones count too, and cost no signature.
        ask(api_server, bearer, "unknown")
    assert "ID tokens in a minute" in message(ask(api_server, bearer))
    assert ask(api_server, modest.bearer()).status_code == 200


def test_a_fault_in_the_configuration_is_a_refusal_that_names_it(
    api_server: TestClient, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORTEX__TOKEN_LIFETIME", "3600")
    assert "[cortex] token_lifetime is 30 to 300 seconds" in message(ask(api_server, make_task().bearer()))


def test_a_fault_of_ours_is_worth_a_second_attempt_and_tells_nothing(
    api_server: TestClient, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(ti_id: uuid.UUID) -> None:
        raise OSError("disk of db.internal is full")

    monkeypatch.setattr("cortex_provider.issuer.endpoint.running_task", fails)
    answer = ask(api_server, make_task().bearer())
    assert (answer.status_code, answer.json()) == (503, {"detail": "the issuer failed: the API server's log says why"})
    assert "disk of db.internal is full" in caplog.text


def test_neither_tokens_nor_bearers_are_logged(
    api_server: TestClient, make_task: MakeTask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="cortex_provider")
    task = make_task()
    bearer = task.bearer()
    token = ask(api_server, bearer).json()["value"]
    ask(api_server, f"{bearer}x")
    assert task.dag_id in caplog.text
    for secret in (token, bearer):
        assert secret.rpartition(".")[2] not in caplog.text


def test_airflows_log_masker_does_not_grow_with_each_token(api_server: TestClient, make_task: MakeTask) -> None:
    """The reason why the issuer is no secrets backend: Airflow never forgets what it masks."""
    from airflow._shared.secrets_masker import secrets_masker

    bearer = make_task().bearer()
    before = len(secrets_masker._secrets_masker().patterns)
    for _ in range(5):
        assert ask(api_server, bearer).status_code == 200
    assert len(secrets_masker._secrets_masker().patterns) == before


def test_a_wrong_configuration_does_not_stop_the_api_server(
    base_url: str, keys: KeyRing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cortex_provider.issuer.endpoint import IdTokenEndpoint

    async def app(*_: object) -> None:
        raise AssertionError("nothing is asked")

    def broken() -> None:
        raise Misconfigured("no key")

    monkeypatch.setattr(keys, "current", broken)
    IdTokenEndpoint(app, keys)
    assert "no ID token can be signed: no key" in caplog.text


def _secret() -> str:
    from airflow.configuration import conf

    return conf.get("api_auth", "jwt_secret")
