from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from support.broker import GRANT, HANDLE, Answer, Broker, grant_status, issued, pending, refused
from support.task import running

from cortex_provider.compat import AirflowFailException, BaseOperator
from cortex_provider.hooks.cortex import CortexHook
from cortex_provider.operators.grant import AwaitsApproval, CortexGrantOperator
from cortex_provider.sensors.grant import CortexGrantSensor
from cortex_provider.settings import Settings
from cortex_provider.triggers.grant import CortexGrantTrigger

STATUS = f"/v1/grants/{GRANT}/status"
DENIED = {"decided_by": ["staff/ada"], "decided_at": "2026-01-01T10:00:00Z", "comment": "not today"}


class Erase(BaseOperator):
    """An operator that knows nothing of Cortex."""

    def __init__(self, *, what: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what = what

    def execute(self, context: Any) -> str:
        return f"erased {self.what}"


class EraseApproved(AwaitsApproval, Erase):
    """The same, once people have approved."""


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch, kwargs: dict[str, Any]) -> Settings:
    settings = Settings.parse(kwargs)
    monkeypatch.setattr(CortexHook, "settings", settings)
    return settings


def deferral(operator: BaseOperator) -> tuple[CortexGrantTrigger, str]:
    """What the operator defers with."""
    # TaskDeferred is a BaseException, at different places in Airflow 2 and 3.
    with running(cortex_reason="ticket 7") as context, pytest.raises(BaseException) as caught:
        operator.execute(context)
    assert type(caught.value).__name__ == "TaskDeferred", caught.value
    trigger = getattr(caught.value, "trigger")  # noqa: B009 its class is not the same everywhere
    assert isinstance(trigger, CortexGrantTrigger)
    return trigger, str(getattr(caught.value, "method_name"))  # noqa: B009


def fire(trigger: CortexGrantTrigger) -> dict[str, Any]:
    """The trigger's event, after Airflow has stored and restored the trigger."""
    path, state = trigger.serialize()
    assert path == "cortex_provider.triggers.grant.CortexGrantTrigger"

    async def first() -> Any:
        return await anext(CortexGrantTrigger(**state).run())

    event: dict[str, Any] = asyncio.run(first()).payload
    return event


def test_an_operator_waits_in_the_triggerer_and_then_ends(broker: Broker) -> None:
    broker.answer = lambda request: pending()
    answers = iter([grant_status("requested"), grant_status("approved", decided_by=["staff/ada"], comment="ok")])
    broker.routes[STATUS] = lambda request: next(answers)
    operator = CortexGrantOperator(task_id="approve", policy="erase", wait=timedelta(minutes=1))
    trigger, method = deferral(operator)
    assert broker.exchanges[0].json()["reason"] == "ticket 7"
    assert 50 < trigger.until - time.time() <= 60
    result = getattr(operator, method)({}, fire(trigger))
    assert (result["grant_id"], result["decided_by"], result["comment"]) == (GRANT, ["staff/ada"], "ok")
    assert all(request.bearer == HANDLE for request in broker.requests[1:])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (grant_status("denied", **DENIED), "was denied by staff/ada at 2026-01-01T10:00:00Z: not today"),
        (grant_status("expired"), "expired before enough people approved"),
        (Answer(401, {"status": 401, "detail": "no such handle"}), "no such handle"),
    ],
)
def test_a_denial_fails_the_task_with_who_when_and_why(broker: Broker, answer: Answer, said: str) -> None:
    broker.answer = lambda request: pending()
    broker.routes[STATUS] = lambda request: answer
    operator = CortexGrantOperator(task_id="approve", policy="erase")
    trigger, method = deferral(operator)
    with pytest.raises(AirflowFailException, match=said):
        getattr(operator, method)({}, fire(trigger))


def test_the_wait_has_an_end(broker: Broker) -> None:
    broker.answer = lambda request: pending()
    broker.routes[STATUS] = lambda request: grant_status("requested")
    operator = CortexGrantOperator(task_id="approve", policy="erase", wait=timedelta(0))
    trigger, method = deferral(operator)
    with pytest.raises(AirflowFailException, match="nobody decided in the time"):
        getattr(operator, method)({}, fire(trigger))


def test_a_trigger_waits_while_cortex_is_away(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cortex_provider.triggers.grant.PAUSE", 0.01)
    answers = iter([Answer(503, b""), grant_status("approved")])
    broker.routes[STATUS] = lambda request: next(answers)
    trigger = CortexGrantTrigger(broker.url, GRANT, HANDLE, time.time() + 60)
    assert fire(trigger)["status"] == "approved"


def test_no_approval_is_missing(broker: Broker) -> None:
    operator = CortexGrantOperator(task_id="approve", policy="erase")
    with running() as context:
        operator.execute(context)
    assert [request.path for request in broker.requests] == ["/v1/credentials"]


def test_a_policy_that_says_no_fails_without_retries_and_an_absence_does_not(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = CortexGrantOperator(task_id="approve", policy="erase")
    broker.answer = lambda request: refused("invalid_target", "not this DAG")
    with running() as context, pytest.raises(AirflowFailException, match="not this DAG"):
        operator.execute(context)
    broker.answer = lambda request: refused("temporarily_unavailable", "restarting", 503)
    monkeypatch.setattr("cortex_provider.leases.PATIENCE", 0.0)
    with running() as context, pytest.raises(Exception, match="restarting") as caught:
        operator.execute(context)
    assert not isinstance(caught.value, AirflowFailException)


def test_a_cortex_without_handles_cannot_be_waited_for(broker: Broker) -> None:
    answer = pending()
    del answer.body["grant_handle"]
    broker.answer = lambda request: answer
    operator = CortexGrantOperator(task_id="approve", policy="erase")
    with running() as context, pytest.raises(AirflowFailException, match="no handle"):
        operator.execute(context)


def test_any_operator_can_wait(broker: Broker) -> None:
    broker.answer = lambda request: pending()
    broker.routes[STATUS] = lambda request: grant_status("approved")
    operator = EraseApproved(task_id="erase", what="everything", cortex_policy="erase")
    trigger, method = deferral(operator)
    with running() as context:
        assert getattr(operator, method)(context, fire(trigger)) == "erased everything"
        broker.answer = lambda request: issued("erase", "aws")
        assert operator.execute(context) == "erased everything"
        with pytest.raises(AirflowFailException, match="no decision"):
            operator.execute_approved(context, {})


def test_a_sensor_looks_again(broker: Broker) -> None:
    sensor = CortexGrantSensor(task_id="approve", policy="erase")
    assert sensor.reschedule
    broker.answer = lambda request: pending()
    with running() as context:
        broker.routes[STATUS] = lambda request: grant_status("requested")
        assert sensor.poke(context) is False
        broker.routes[STATUS] = lambda request: Answer(503, b"")
        assert sensor.poke(context) is False
        broker.routes[STATUS] = lambda request: grant_status("approved")
        assert sensor.poke(context) is True
        broker.answer = lambda request: refused("temporarily_unavailable", "restarting", 503)
        assert sensor.poke(context) is False
        broker.answer = lambda request: refused("access_denied", "grant g was denied by staff/ada: no")
        with pytest.raises(AirflowFailException, match="denied by staff/ada"):
            sensor.poke(context)
        broker.answer = lambda request: issued("erase", "aws")
        assert sensor.poke(context) is True
