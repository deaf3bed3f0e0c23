from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.broker import GRANT, HANDLE, TOKEN, Answer, Broker, failed, grant_status, issued, pending, refused

from cortex_provider.client import ANSWER_MAX, Ask, BrokerClient, Credential, parse_time
from cortex_provider.errors import ApprovalPending, CortexError, GrantRefused, NotUnderstood, Refused, Unavailable

ASK = Ask("first-steps", "because", 900)


@pytest.fixture
def client(broker: Broker) -> BrokerClient:
    return BrokerClient(broker.url, timeout=5)


def test_an_exchange_shows_the_token_and_asks_for_everything(broker: Broker, client: BrokerClient) -> None:
    bundle = client.credentials(TOKEN, ASK, {"dag_id": "d"})
    request = broker.requests[0]
    assert request.bearer == TOKEN
    expected = {"policy": "first-steps", "reason": "because", "ttl_seconds": 900, "run": {"dag_id": "d"}}
    assert request.json() == expected
    assert set(bundle.credentials) == {"aws", "bigquery", "snowflake", "api"}
    aws = bundle.credentials["aws"]
    assert isinstance(aws, Credential)
    assert aws.secrets["secret_access_key"].startswith("secret-access-key")
    assert aws.details["region"] == "eu-west-3"
    assert 890 < aws.remaining() <= 900


def test_what_is_absent_is_not_sent(broker: Broker, client: BrokerClient) -> None:
    client.credentials(TOKEN, Ask("first-steps"))
    assert broker.requests[0].json() == {"policy": "first-steps"}


def test_no_secret_shows_in_a_repr(client: BrokerClient) -> None:
    bundle = client.credentials(TOKEN, ASK)
    for credential in bundle.credentials.values():
        assert isinstance(credential, Credential)
        for secret in credential.secrets.values():
            assert secret not in repr(bundle)


def test_a_target_may_fail_beside_others(broker: Broker, client: BrokerClient) -> None:
    away = failed("temporarily_unavailable", "Snowflake is away")
    denied = failed("invalid_target", "outside the hours", decision_id="0190")
    broker.answer = lambda request: issued("first-steps", "aws", snowflake=away, api=denied)
    entries = client.credentials(TOKEN, ASK).credentials
    assert isinstance(entries["aws"], Credential)
    assert isinstance(entries["snowflake"], Unavailable)
    assert isinstance(entries["api"], Refused)
    assert "decision 0190" in str(entries["api"])


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (refused(), Refused, "no such policy .decision 0190dddd"),
        (refused("access_denied", "grant g was denied by ada: no"), GrantRefused, "denied by ada"),
        (refused("temporarily_unavailable", "come back", 503), Unavailable, "come back"),
        (refused("server_error", "a cloud failed", 502), Refused, "a cloud failed"),
        (pending(), ApprovalPending, GRANT),
        (Answer(404, {"status": 404, "detail": "no such route"}), Refused, "no such route"),
        (Answer(500, b"<html>oops</html>"), Unavailable, "HTTP 500"),
        (Answer(429, b"slow down"), Unavailable, "HTTP 429"),
        (Answer(200, b"<html>a login page</html>"), NotUnderstood, "HTTP 200"),
        (Answer(302, b"", {"Location": "https://elsewhere.example.com"}), NotUnderstood, "HTTP 302"),
        (Answer(200, {"policy": "first-steps", "credentials": {}}), NotUnderstood, "without credentials"),
        (issued("another"), NotUnderstood, "without credentials"),
        (issued("first-steps", aws={"status": "issued"}), NotUnderstood, "entry for aws"),
        (issued("first-steps", aws="x"), NotUnderstood, "entry for aws"),
        (Answer(200, b" " * (ANSWER_MAX + 1)), NotUnderstood, "larger than"),
    ],
)
def test_every_other_answer_is_an_error_of_its_kind(
    broker: Broker, client: BrokerClient, answer: Answer, kind: type[CortexError], said: str
) -> None:
    broker.answer = lambda request: answer
    with pytest.raises(kind, match=said) as caught:
        client.credentials(TOKEN, ASK)
    assert TOKEN not in str(caught.value)
    assert len(broker.requests) == 1


def test_pending_says_what_to_wait_for(broker: Broker, client: BrokerClient) -> None:
    broker.answer = lambda request: pending()
    with pytest.raises(ApprovalPending) as caught:
        client.credentials(TOKEN, ASK)
    assert (caught.value.grant_id, caught.value.grant_handle, caught.value.interval) == (GRANT, HANDLE, 1)


@pytest.mark.parametrize(
    "answer",
    [
        refused("temporarily_unavailable", "busy", 503),
        refused("slow_down", "this run asks more often than allowed", 429),
        # What is turned away before anything is looked at is answered with problem details.
        Answer(503, {"status": 503, "title": "Service Unavailable", "detail": "ask again"}),
        Answer(429, {"status": 429, "title": "Too Many Requests", "detail": "ask again"}),
    ],
)
def test_retry_after_is_read(broker: Broker, client: BrokerClient, answer: Answer) -> None:
    answer.headers["Retry-After"] = "7"
    broker.answer = lambda request: answer
    with pytest.raises(Unavailable) as caught:
        client.credentials(TOKEN, ASK)
    assert caught.value.retry_after == 7


def test_nobody_there(broker: Broker) -> None:
    broker.stop()
    with pytest.raises(Unavailable, match="cannot be reached"):
        BrokerClient(broker.url, timeout=2).credentials(TOKEN, ASK)


def test_a_grants_status_in_both_worlds(broker: Broker, client: BrokerClient) -> None:
    said: dict[str, Any] = {"decided_by": ["staff/ada"], "decided_at": "2026-01-01T10:00:00Z", "comment": "not today"}
    broker.routes[f"/v1/grants/{GRANT}/status"] = lambda request: grant_status("denied", **said)
    answers = [
        client.grant_status(GRANT, HANDLE, wait=99),
        asyncio.run(client.agrant_status(GRANT, HANDLE, wait=99)),
    ]
    for status in answers:
        assert status.decided
        sentence = f"grant {GRANT} for policy erase was denied by staff/ada at 2026-01-01T10:00:00Z: not today"
        assert status.sentence() == sentence
    for request in broker.requests:
        assert request.bearer == HANDLE
        assert request.query == {"wait": ["20"]}


def test_a_grants_status_that_is_none(broker: Broker, client: BrokerClient) -> None:
    broker.routes[f"/v1/grants/{GRANT}/status"] = lambda request: grant_status("maybe")
    with pytest.raises(NotUnderstood):
        client.grant_status(GRANT, HANDLE)
    with pytest.raises(Refused, match="not here"):
        asyncio.run(client.agrant_status("../../x", HANDLE))


def test_readiness_tells_the_clocks_apart(broker: Broker, client: BrokerClient) -> None:
    broker.routes["/readyz"] = lambda request: Answer(200, {})
    ahead = client.ready()
    assert ahead is not None and abs(ahead) < 5
    broker.routes["/readyz"] = lambda request: Answer(503, {})
    with pytest.raises(Unavailable, match="not ready"):
        client.ready()


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456+00:00"),
        ("2026-01-02T03:04:05.5+01:00", "2026-01-02T03:04:05.500000+01:00"),
    ],
)
def test_times(text: str, iso: str) -> None:
    assert parse_time(text).isoformat() == iso
