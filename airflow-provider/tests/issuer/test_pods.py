"""The pod mutation hook, with tokens that Airflow itself signs and runs in its database."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from cortex_provider import kubernetes

MakeTask = Callable[..., Any]
SPOOFED = {"dag_id": "payroll", "run_id": "r", "task_id": "t", "try_number": "1", "map_index": "-1", "team": "x"}


def pod(*arguments: str) -> Any:
    container = SimpleNamespace(command=None, args=list(arguments), volume_mounts=None)
    metadata = SimpleNamespace(name="pod", annotations=dict(SPOOFED))
    return SimpleNamespace(metadata=metadata, spec=SimpleNamespace(containers=[container], volumes=None))


def workload(token: str) -> list[str]:
    return [
        "python",
        "-m",
        "airflow.sdk.execution_time.execute_workload",
        "--json-string",
        json.dumps({"token": token}),
    ]


def for_another_audience(ti_id: UUID) -> str:
    """A token that Airflow signed for a use other than running tasks."""
    from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args

    return str(JWTGenerator(valid_for=600, audience="elsewhere", **get_signing_args()).generate({"sub": str(ti_id)}))


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Which pods got a token; Kubernetes' own client is not needed for that."""
    pods: list[Any] = []
    monkeypatch.setattr(kubernetes, "mount_token", pods.append)
    return pods


def test_the_annotations_are_what_airflow_signed(mounted: list[Any], make_task: MakeTask) -> None:
    task = make_task(try_number=2, map_index=3)
    made = pod(*workload(task.bearer(scope="workload")))
    kubernetes.pod_mutation_hook(made)
    true = {"dag_id": task.dag_id, "run_id": "r1", "task_id": "publish", "map_index": "3", "try_number": "2"}
    assert made.metadata.annotations == {**true, "team": "x"}
    assert mounted == [made]


@pytest.mark.parametrize("kind", ["no workload", "no token", "forged", "another audience", "unknown", "not JSON"])
def test_a_pod_that_proves_nothing_says_nothing(mounted: list[Any], make_task: MakeTask, kind: str) -> None:
    task = make_task()
    head, _, tail = task.bearer().rpartition(".")
    arguments = {
        "no workload": ["bash"],
        "no token": ["--json-string", "{}"],
        "forged": workload(f"{head}.{tail[::-1]}"),
        "another audience": workload(for_another_audience(task.id)),
        "unknown": workload(task.bearer(sub=str(uuid4()))),
        "not JSON": ["--json-string"],
    }[kind]
    made = pod(*arguments)
    kubernetes.pod_mutation_hook(made)
    assert made.metadata.annotations == {"team": "x"}
    assert not mounted


def test_the_token_is_mounted_once() -> None:
    models = pytest.importorskip("kubernetes.client.models")
    container = models.V1Container(name="base", image="airflow")
    made = models.V1Pod(spec=models.V1PodSpec(containers=[container]), metadata=models.V1ObjectMeta(name="pod"))
    for _ in range(2):
        kubernetes.mount_token(made)
    (volume,) = made.spec.volumes
    assert volume.projected.sources[0].service_account_token.audience == "cortex"
    (mount,) = made.spec.containers[0].volume_mounts
    assert mount.read_only and f"{mount.mount_path}/token" == kubernetes.TOKEN_FILE
