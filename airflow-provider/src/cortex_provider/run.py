"""Which task instance this process is running: context for Cortex, never evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cortex_provider import compat
from cortex_provider.errors import NoIdentity

#: Cortex takes reasons of at most this many bytes.
REASON_MAX = 500

OUTSIDE = (
    "Cortex answers inside a running task only: in its execute(), its templates, and the code of a worker. The DAG "
    "processor, the API server, the scheduler and triggers have no identity that Cortex could check. Move the lookup "
    "into the task; a deferrable operator gets its credentials before it defers or after it resumes."
)


@dataclass(frozen=True)
class Run:
    """One try of one task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    #: Airflow 3's id of this try, empty where there is none.
    instance_id: str = ""
    run_type: str | None = None
    triggered_by: str | None = None
    triggering_user_name: str | None = None

    @property
    def key(self) -> str:
        """What tells this try from every other."""
        named = "\0".join((self.dag_id, self.run_id, self.task_id, str(self.map_index), str(self.try_number)))
        return self.instance_id or named

    def claim(self) -> dict[str, Any]:
        """The run as a service identity claims it towards Cortex."""
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "task_id": self.task_id,
            "map_index": self.map_index,
            "try_number": self.try_number,
        }

    def described(self) -> dict[str, Any]:
        """The run with all that is known of it, as the development issuer takes it."""
        known = {k: v for k, v in asdict(self).items() if v is not None and k != "instance_id"}
        return known


def current_run() -> Run:
    """The run of this process; raises `NoIdentity` outside a task."""
    bound = compat.log_context()
    if bound.get("trigger_id") is not None:
        raise NoIdentity(OUTSIDE)
    context = compat.current_context()
    if context is not None:
        return _from_context(context)
    if bound.get("ti_id") and bound.get("task_id"):
        return _from_log(bound)
    raise NoIdentity(OUTSIDE)


def reason_from_params(param: str) -> str | None:
    """The reason that the person who triggered the run gave in the param `param`, cut to what Cortex takes."""
    context = compat.current_context()
    params = (context or {}).get("params") or {}
    try:
        reason = params[param]
    except (KeyError, TypeError):
        return None
    return bounded_reason(str(reason)) if reason else None


def bounded_reason(reason: str) -> str:
    """The reason, at most `REASON_MAX` bytes of UTF-8 and without NUL."""
    return reason.replace("\0", "").encode()[:REASON_MAX].decode(errors="ignore")


def _from_context(context: Mapping[str, Any]) -> Run:
    ti, dag_run = context["ti"], context.get("dag_run")
    return Run(
        dag_id=str(ti.dag_id),
        run_id=str(ti.run_id),
        task_id=str(ti.task_id),
        map_index=_map_index(getattr(ti, "map_index", None)),
        try_number=int(ti.try_number),
        instance_id=str(getattr(ti, "id", "") or ""),
        run_type=_word(getattr(dag_run, "run_type", None)),
        triggered_by=_word(getattr(dag_run, "triggered_by", None)),
        triggering_user_name=_word(getattr(dag_run, "triggering_user_name", None)),
    )


def _from_log(bound: Mapping[str, Any]) -> Run:
    return Run(
        dag_id=str(bound["dag_id"]),
        run_id=str(bound["run_id"]),
        task_id=str(bound["task_id"]),
        map_index=_map_index(bound.get("map_index")),
        try_number=int(bound.get("try_number") or 1),
        instance_id=str(bound["ti_id"]),
    )


def _map_index(value: object) -> int:
    return value if isinstance(value, int) else -1


def _word(value: object) -> str | None:
    """An enumeration's value, or the text itself."""
    value = getattr(value, "value", value)
    return str(value) if value else None
