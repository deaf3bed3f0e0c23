"""What the claims say, and when there are none."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from cortex_provider.issuer.errors import Refused
from cortex_provider.issuer.runs import MAX_TAGS, running_task

if TYPE_CHECKING:
    from issuer.conftest import MakeTask


def test_everything_that_airflow_knows(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    team = f"team_{uuid.uuid4().hex[:8]}"
    task = make_task(
        owners="data, finance",
        tags=["mart", "finance"],
        team=team,
        bundle_name=f"git_{team}",
        run={
            "run_type": "manual",
            "triggered_by": "REST_API",
            "triggering_user_name": "alice",
            "bundle_version": "abc123",
        },
        map_index=7,
        try_number=3,
        queue="gpu",
        pool="default_pool",
        hostname="worker-1",
    )
    assert running_task(task.id) == {
        "dag_id": task.dag_id,
        "run_id": "r1",
        "task_id": "publish",
        "map_index": 7,
        "try_number": 3,
        "ti_id": str(task.id),
        "run_type": "manual",
        "triggered_by": "rest_api",
        "triggering_user_name": "alice",
        "team_name": team,
        "bundle_name": f"git_{team}",
        "bundle_version": "abc123",
        "tags": ["finance", "mart"],
        "owner": "data, finance",
        "queue": "gpu",
        "pool": "default_pool",
        "hostname": "worker-1",
    }


def test_what_airflow_does_not_know_is_absent(make_task: MakeTask) -> None:
    facts = running_task(make_task(hostname="", queue=None).id)
    unknown = {"triggered_by", "triggering_user_name", "team_name", "bundle_version", "tags", "owner", "hostname"}
    assert unknown.isdisjoint(facts)
    assert None not in facts.values()


def test_a_team_counts_only_where_there_are_teams(make_task: MakeTask) -> None:
    assert "team_name" not in running_task(make_task(team=f"team_{uuid.uuid4().hex[:8]}").id)


@pytest.mark.parametrize("state", ["success", "failed", "queued", "deferred", "up_for_retry", "restarting", None])
def test_only_a_running_task_has_claims(make_task: MakeTask, state: str | None) -> None:
    task = make_task(state=state)
    with pytest.raises(Refused, match="is not running, but"):
        running_task(task.id)


def test_the_state_is_read_anew(make_task: MakeTask) -> None:
    task = make_task()
    running_task(task.id)
    task.set(state="failed")
    with pytest.raises(Refused, match="not running, but failed"):
        running_task(task.id)


def test_an_unknown_task_instance_has_none(tables: None) -> None:
    with pytest.raises(Refused, match="there is no task instance"):
        running_task(uuid.uuid4())


def test_a_dag_that_moved_to_another_bundle_takes_no_team_along(make_task: MakeTask) -> None:
    with pytest.raises(Refused, match="moved from bundle theirs to ours_"):
        running_task(make_task(bundle_name=f"ours_{uuid.uuid4().hex[:8]}", version_bundle="theirs").id)


def test_a_run_without_a_dag_version_has_its_dags_bundle(make_task: MakeTask) -> None:
    task = make_task(dag_version_id=None)
    assert running_task(task.id)["bundle_name"] == f"bundle_{task.dag_id}"


def test_tags_have_a_limit(make_task: MakeTask) -> None:
    assert len(running_task(make_task(tags=[f"t{n}" for n in range(MAX_TAGS)]).id)["tags"]) == MAX_TAGS
    with pytest.raises(Refused, match=f"more than {MAX_TAGS} tags"):
        running_task(make_task(tags=[f"t{n}" for n in range(MAX_TAGS + 1)]).id)
