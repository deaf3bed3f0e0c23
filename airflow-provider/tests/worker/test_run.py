from __future__ import annotations

import pytest
from support.task import running

from cortex_provider.compat import AIRFLOW_3
from cortex_provider.errors import NoIdentity
from cortex_provider.run import bounded_reason, current_run, reason_from_params


def test_outside_a_task_there_is_no_run() -> None:
    with pytest.raises(NoIdentity, match="inside a running task only"):
        current_run()
    assert reason_from_params("cortex_reason") is None


def test_inside_there_is() -> None:
    with running("publish_eu", try_number=2, map_index=3, cortex_reason="month end") as context:
        run = current_run()
        assert (run.dag_id, run.task_id, run.try_number, run.map_index) == ("hello_cortex", "publish_eu", 2, 3)
        assert run.run_type == "scheduled"
        assert run.triggering_user_name == "ada"
        assert run.instance_id == str(getattr(context["ti"], "id", ""))
        assert reason_from_params("cortex_reason") == "month end"
        assert reason_from_params("other") is None


def test_tries_and_mapped_tasks_are_told_apart() -> None:
    keys = set()
    for try_number, map_index in ((1, -1), (2, -1), (1, 0), (1, 1)):
        with running(try_number=try_number, map_index=map_index):
            keys.add(current_run().key)
    assert len(keys) == 4


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 binds nothing to its log lines")
def test_code_at_the_top_of_a_dag_file_in_a_worker_has_a_run() -> None:
    from structlog.contextvars import bound_contextvars

    bound = {"ti_id": "0190", "dag_id": "d", "task_id": "t", "run_id": "r", "try_number": 2, "map_index": -1}
    with bound_contextvars(**bound):
        assert current_run().key == "0190"
    # A trigger's log lines name the task too, but nothing there proves that it is the task.
    with bound_contextvars(**bound, trigger_id=7), pytest.raises(NoIdentity):
        current_run()


def test_reasons_fit() -> None:
    assert bounded_reason("a\0b") == "ab"
    assert len(bounded_reason("é" * 400).encode()) == 500
    assert len(bounded_reason("x" + "é" * 400).encode()) == 499
