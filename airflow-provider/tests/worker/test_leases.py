from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.broker import (
    GRANT,
    Answer,
    Broker,
    Request,
    entry,
    failed,
    grant_status,
    issued,
    pending,
    refused,
)

from cortex_provider import leases as module
from cortex_provider.client import Ask
from cortex_provider.errors import ApprovalPending, GrantRefused, Refused, Unavailable
from cortex_provider.leases import Leases
from cortex_provider.run import Run

RUN = Run("dag", "run", "task", instance_id="0190")
ASK = Ask("first-steps")
#: A life of which less than what a renewal waits for is left at once, because Cortex gave it a while ago.
MakeLeases = Callable[..., Leases]


def due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on everything that is held has to be renewed at its next use."""
    monkeypatch.setattr(module, "RENEW_BELOW", 2.0)


def test_one_exchange_for_all_targets_and_lookups(broker: Broker, leases: MakeLeases) -> None:
    held = leases()
    first = [held.credential(RUN, ASK, target) for target in ("aws", "bigquery", "snowflake", "api")]
    again = [held.credential(RUN, Ask("first-steps", "a reason"), target) for target in ("aws", "bigquery")]
    assert len(broker.exchanges) == 1
    assert again == first[:2]
    assert set(held.bundle(RUN, ASK)) == {"aws", "bigquery", "snowflake", "api"}
    assert len(broker.exchanges) == 1


def test_threads_share_one_exchange(broker: Broker, leases: MakeLeases) -> None:
    held, entered, leave = leases(), threading.Event(), threading.Event()

    def slow(request: Request) -> Answer:
        entered.set()
        leave.wait(10)
        return issued("first-steps")

    broker.answer = slow
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(held.credential, RUN, ASK, "aws") for _ in range(16)]
        assert entered.wait(10)
        leave.set()
        issuances = {one.result(10).issuance_id for one in asked}
    assert len(issuances) == 1
    assert len(broker.exchanges) == 1


def test_each_try_and_each_policy_has_its_own(broker: Broker, leases: MakeLeases) -> None:
    held = leases()
    runs = [RUN, Run("dag", "run", "task", try_number=2, instance_id="0191"), Run("dag", "run", "task", 0)]
    issuances = {held.credential(run, ASK, "aws").issuance_id for run in runs}
    issuances.add(held.credential(RUN, Ask("other"), "aws").issuance_id)
    issuances.add(held.credential(RUN, Ask("first-steps", ttl_seconds=60), "aws").issuance_id)
    assert len(issuances) == len(broker.exchanges) == 5


def test_a_child_process_is_not_served_from_its_parents_memory(broker: Broker, leases: MakeLeases) -> None:
    held = leases()
    parent = held.credential(RUN, ASK, "aws").issuance_id
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, held.credential(RUN, ASK, "aws").issuance_id.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert theirs and theirs != parent
    assert held.credential(RUN, ASK, "aws").issuance_id == parent


def test_what_nears_its_end_is_renewed(
    broker: Broker, leases: MakeLeases, monkeypatch: pytest.MonkeyPatch, token_file: Any
) -> None:
    held = leases()
    first = held.credential(RUN, ASK, "aws")
    due_at_once(monkeypatch)
    token_file.write_text("a.fresh.token")
    second = held.credential(RUN, ASK, "aws")
    assert second.issuance_id != first.issuance_id
    assert [request.bearer for request in broker.exchanges] == ["header.payload.signature", "a.fresh.token"]


def test_nothing_is_served_past_its_lease(broker: Broker, leases: MakeLeases) -> None:
    held = leases()
    broker.answer = lambda request: issued("first-steps", "aws", life=-1)
    held.credential(RUN, ASK, "aws")
    broker.answer = lambda request: refused("invalid_target", "the policy was withdrawn")
    with pytest.raises(Refused, match="withdrawn"):
        held.credential(RUN, ASK, "aws")


def test_a_refused_renewal_forgets_what_was_held(
    broker: Broker, leases: MakeLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = leases()
    held.credential(RUN, ASK, "aws")
    broker.answer = lambda request: refused("invalid_target", "the policy was withdrawn")
    with monkeypatch.context() as patched:
        due_at_once(patched)
        with pytest.raises(Refused, match="withdrawn"):
            held.credential(RUN, ASK, "aws")
    with pytest.raises(Refused, match="withdrawn"):
        held.credential(RUN, ASK, "aws")


def test_while_cortex_is_away_what_lives_goes_on(
    broker: Broker, leases: MakeLeases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = leases()
    first = held.credential(RUN, ASK, "aws")
    broker.answer = lambda request: refused("temporarily_unavailable", "restarting", 503)
    due_at_once(monkeypatch)
    assert held.credential(RUN, ASK, "aws") == first
    monkeypatch.setattr(module, "USABLE_SECONDS", 10_000)
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    with pytest.raises(Unavailable, match="restarting"):
        held.credential(RUN, ASK, "aws")


def test_it_comes_back_when_it_is_told_to(
    broker: Broker, leases: MakeLeases, monkeypatch: pytest.MonkeyPatch, token_file: Any
) -> None:
    turned_away, later = refused("slow_down", "ask again", 429), refused("temporarily_unavailable", "busy", 503)
    turned_away.headers["Retry-After"], later.headers["Retry-After"] = "7", "31"
    answers = iter([turned_away, later, refused("temporarily_unavailable", "busy", 503), issued("first-steps")])
    broker.answer = lambda request: next(answers)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        token_file.write_text(f"token.number.{len(waits)}")

    monkeypatch.setattr(time, "sleep", sleep)
    assert leases().credential(RUN, ASK, "aws").target == "aws"
    assert waits[:2] == [7.0, 31.0], "not sooner than it was told, and not later"
    assert 2.0 <= waits[2] <= 4.0, "its own pause has chance in it"
    assert len({request.bearer for request in broker.exchanges}) == 4, "each try shows a fresh token"


def test_a_short_absence_is_waited_for(broker: Broker, leases: MakeLeases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_MAX", 0.01)
    answers = iter([refused("temporarily_unavailable", "busy", 503), Answer(502, b""), issued("first-steps")])
    broker.answer = lambda request: next(answers)
    assert leases().credential(RUN, ASK, "aws").target == "aws"
    assert len(broker.exchanges) == 3


def test_the_only_target_needs_no_name(broker: Broker, leases: MakeLeases) -> None:
    held = leases()
    broker.answer = lambda request: issued(request.json()["policy"], "api")
    assert held.credential(RUN, Ask("one"), None).target == "api"
    broker.answer = lambda request: issued(request.json()["policy"])
    with pytest.raises(Refused, match="has the targets api, aws, bigquery, snowflake"):
        held.credential(RUN, Ask("several"), None)
    with pytest.raises(Refused, match="no target azure"):
        held.credential(RUN, Ask("several"), "azure")
    assert len(broker.exchanges) == 2


def test_a_target_that_failed_says_why(broker: Broker, leases: MakeLeases) -> None:
    held = leases()
    denied = failed("invalid_target", "outside the hours")
    away = failed("temporarily_unavailable", "Snowflake is away")
    broker.answer = lambda request: issued("first-steps", "aws", api=denied, snowflake=away)
    assert held.credential(RUN, ASK, "aws")
    with pytest.raises(Refused, match="outside the hours"):
        held.credential(RUN, ASK, "api")
    assert len(broker.exchanges) == 1
    # What was away may be back.
    with pytest.raises(Unavailable, match="Snowflake is away"):
        held.credential(RUN, ASK, "snowflake")
    broker.answer = lambda request: issued("first-steps")
    assert held.credential(RUN, ASK, "snowflake")
    assert len(broker.exchanges) == 3


def test_a_bundle_is_whole_or_not_at_all(broker: Broker, leases: MakeLeases) -> None:
    broker.answer = lambda request: issued("first-steps", "aws", api=failed("invalid_target", "outside the hours"))
    with pytest.raises(Refused, match="api: outside the hours"):
        leases().bundle(RUN, ASK)


def test_an_approval_is_waited_for(broker: Broker, leases: MakeLeases) -> None:
    answers = iter([pending(), issued("first-steps")])
    broker.answer = lambda request: next(answers)
    by = {"decided_by": ["staff/ada"]}
    broker.routes[f"/v1/grants/{GRANT}/status"] = lambda request: grant_status("approved", **by)
    assert leases(wait_for_approval=60).credential(RUN, ASK, "aws").target == "aws"
    assert len(broker.exchanges) == 2


@pytest.mark.parametrize(("status", "said"), [("denied", "was denied by staff/ada: no"), ("expired", "expired before")])
def test_a_denial_ends_the_wait(broker: Broker, leases: MakeLeases, status: str, said: str) -> None:
    broker.answer = lambda request: pending()
    more = {"decided_by": ["staff/ada"], "comment": "no"} if status == "denied" else {}
    broker.routes[f"/v1/grants/{GRANT}/status"] = lambda request: grant_status(status, **more)
    with pytest.raises(GrantRefused, match=said):
        leases(wait_for_approval=60).credential(RUN, ASK, "aws")


@pytest.mark.parametrize("wait", [0, 1])
def test_a_wait_has_an_end(broker: Broker, leases: MakeLeases, wait: int) -> None:
    broker.answer = lambda request: pending()
    broker.routes[f"/v1/grants/{GRANT}/status"] = lambda request: grant_status("requested")
    with pytest.raises(ApprovalPending, match=f"waited {wait} s"):
        leases(wait_for_approval=wait).credential(RUN, ASK, "aws")


def test_each_issuance_has_one_line_and_no_secret(
    broker: Broker, leases: MakeLeases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    same = entry("aws")
    broker.answer = lambda request: issued("first-steps", aws=same)
    held = leases()
    credential = held.credential(RUN, ASK, "aws")
    due_at_once(monkeypatch)
    held.credential(RUN, ASK, "aws")
    assert len(broker.exchanges) == 2
    lines = [line for line in caplog.messages if credential.issuance_id in line]
    assert len(lines) == 1
    for part in ("first-steps", "aws", credential.expires_at.isoformat(timespec="seconds")):
        assert part in lines[0]
    for secret in (*credential.secrets.values(), "header.payload.signature", "cortex_lease_"):
        assert secret not in caplog.text


def test_memory_is_bounded(broker: Broker, leases: MakeLeases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS_MAX", 3)
    held = leases(timeout=29)
    for number in range(6):
        held.credential(RUN, Ask(f"p{number}"), "aws")
    assert len(held._slots) == 3
