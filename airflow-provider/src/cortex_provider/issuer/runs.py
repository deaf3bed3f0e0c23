"""What Airflow's database says of a running task instance."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cortex_provider.issuer.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from sqlalchemy.sql import Select

MAX_TAGS = 500


def running_task(ti_id: UUID) -> dict[str, Any]:
    """The claims about a task instance, read anew each time. What Airflow does not know is absent.

    :raises Refused: unless the task instance exists and is running at this moment.
    """
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.execute(_statement(ti_id)).mappings().one_or_none()
        if row is None:
            raise Refused(f"there is no task instance {ti_id}: its try is over, or it was cleared")
        facts = dict(row)
        state = _text(facts.pop("state"))
        if state != "running":
            raise Refused(f"the task instance {ti_id} is not running, but {state or 'without a state'}")
        _refuse_moved_dag(facts)
        facts["tags"] = _tags(facts["dag_id"], session)
        facts["team_name"] = _team(facts["dag_id"], session)
    return {name: _text(value) for name, value in facts.items() if value is not None and value != ""}


def _statement(ti_id: UUID) -> Select[Any]:
    """One row, whose labels are the names of the claims."""
    from airflow.models.dag import DagModel
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import and_, select

    task, run, dag, version = (model.__table__.c for model in (TaskInstance, DagRun, DagModel, DagVersion))
    columns = (
        task.state,
        task.dag_id,
        task.run_id,
        task.task_id,
        task.map_index,
        task.try_number,
        task.id.label("ti_id"),
        run.run_type,
        run.triggered_by,
        run.triggering_user_name,
        # As the scheduler tells the worker which code to run.
        dag.bundle_name,
        run.bundle_version,
        version.bundle_name.label("version_bundle_name"),
        dag.owners.label("owner"),
        task.queue,
        task.pool,
        task.hostname,
    )
    tables = (
        TaskInstance.__table__.join(DagRun.__table__, and_(run.dag_id == task.dag_id, run.run_id == task.run_id))
        .join(DagModel.__table__, dag.dag_id == task.dag_id)
        .outerjoin(DagVersion.__table__, version.id == task.dag_version_id)
    )
    return select(*columns).select_from(tables).where(task.id == ti_id)


def _refuse_moved_dag(facts: dict[str, Any]) -> None:
    """A DAG that moves to another bundle must not give that bundle's team to the code that runs."""
    made_in = facts.pop("version_bundle_name")
    if made_in is not None and made_in != facts["bundle_name"]:
        raise Refused(
            f"the DAG {facts['dag_id']} moved from bundle {made_in} to {facts['bundle_name']} since this run was made"
        )


def _tags(dag_id: str, session: Session) -> list[str] | None:
    from airflow.models.dag import DagTag
    from sqlalchemy import select

    names = session.scalars(select(DagTag.name).where(DagTag.dag_id == dag_id).limit(MAX_TAGS + 1)).all()
    if len(names) > MAX_TAGS:
        raise Refused(f"the DAG {dag_id} has more than {MAX_TAGS} tags")
    return sorted(names) or None


def _team(dag_id: str, session: Session) -> str | None:
    """The team whose bundle the DAG is in, which the deployment decides and not the DAG's author."""
    from airflow.configuration import conf
    from airflow.models.dag import DagModel

    if not conf.getboolean("core", "multi_team", fallback=False):
        return None
    return DagModel.get_team_name(dag_id, session=session)


def _text(value: object) -> object:
    """Enumerations and ids as JSON has them; everything else as it is."""
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, UUID) else value
