"""A running task, as Airflow's own machinery shows it to the code of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from cortex_provider import compat

set_current_context: Callable[[Any], AbstractContextManager[Any]] = import_module(
    "airflow.sdk.execution_time.context" if compat.AIRFLOW_3 else "airflow.models.taskinstance"
).set_current_context


@contextmanager
def running(task_id: str = "publish_mart", try_number: int = 1, map_index: int = -1, **params: Any) -> Iterator[Any]:
    """Inside, this process executes that task."""
    ti = SimpleNamespace(
        dag_id="hello_cortex", run_id="scheduled__1", task_id=task_id, map_index=map_index, try_number=try_number
    )
    if compat.AIRFLOW_3:
        ti.id = f"0190eeee-0000-7000-8000-{abs(hash((task_id, try_number, map_index))) % 10**12:012}"
    dag_run = SimpleNamespace(run_type="scheduled", triggered_by=None, triggering_user_name="ada")
    context: Any = {"ti": ti, "dag_run": dag_run, "params": params}
    with set_current_context(context):
        yield context
