"""For KubernetesExecutor without the API server's issuer: pods that say truthfully which run they are.

In `airflow_local_settings.py` of the scheduler:

    from cortex_provider.kubernetes import pod_mutation_hook

A DAG's `pod_override` may set any annotation. This hook runs after it, in the scheduler, takes the run from the token
that Airflow signed for the pod, and writes the annotations anew. It makes them true when the pod is made; that nobody
changes them later, and that other pods have neither the service account nor the namespace, is for an admission policy.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from kubernetes.client.models import V1Container, V1Pod

log = logging.getLogger(__name__)

#: What Cortex reads; nobody but this hook may say it.
ANNOTATIONS = ("dag_id", "run_id", "task_id", "map_index", "try_number")
AUDIENCE = "cortex"
#: identity=file with this token_file is what the worker in the pod is configured with.
TOKEN_FOLDER = "/var/run/secrets/cortex"  # noqa: S105 a folder, not a secret
TOKEN_FILE = f"{TOKEN_FOLDER}/token"
#: How long a projected token lives, in seconds; the kubelet replaces it in time. Kubernetes takes no less.
TOKEN_SECONDS = 600
VOLUME = "cortex-token"


def pod_mutation_hook(pod: V1Pod) -> None:
    """Restamps a worker pod's annotations and mounts a token for Cortex; a pod that proves no run gets neither."""
    annotations = {k: v for k, v in (pod.metadata.annotations or {}).items() if k not in ANNOTATIONS}
    try:
        run = _proven_run(pod)
    # Airflow would not start the pod at all; one without an identity can still do what needs no credentials.
    except Exception as error:
        log.warning("Cortex: pod %s gets no identity: %s: %s", pod.metadata.name, type(error).__name__, error)
        run = None
    pod.metadata.annotations = {**annotations, **(run or {})}
    if run is not None:
        mount_token(pod)


def mount_token(pod: V1Pod, audience: str = AUDIENCE) -> None:
    """Mounts a projected service-account token for `audience` into the pod's first container, at `TOKEN_FILE`."""
    from kubernetes.client import models

    token = models.V1ServiceAccountTokenProjection(audience=audience, expiration_seconds=TOKEN_SECONDS, path="token")
    source = models.V1VolumeProjection(service_account_token=token)
    volume = models.V1Volume(name=VOLUME, projected=models.V1ProjectedVolumeSource(sources=[source]))
    pod.spec.volumes = [v for v in pod.spec.volumes or [] if v.name != VOLUME] + [volume]
    container: V1Container = pod.spec.containers[0]
    others = [m for m in container.volume_mounts or [] if m.name != VOLUME and m.mount_path != TOKEN_FOLDER]
    mount = models.V1VolumeMount(name=VOLUME, mount_path=TOKEN_FOLDER, read_only=True)
    container.volume_mounts = [*others, mount]


def _proven_run(pod: V1Pod) -> dict[str, str]:
    """The run that the pod's workload proves, as annotations; raises whatever is wrong with it."""
    container = pod.spec.containers[0]
    workload = _workload([*(container.command or []), *(container.args or [])])
    ti_id = UUID(_verified(workload["token"])["sub"])
    return _annotations(ti_id)


def _workload(arguments: Sequence[str]) -> Mapping[str, Any]:
    """What KubernetesExecutor gives the pod to run; others, such as KubernetesPodOperator's, have none."""
    at = list(arguments).index("--json-string")
    workload: Mapping[str, Any] = json.loads(arguments[at + 1])
    return workload


def _verified(token: str) -> Mapping[str, Any]:
    """The claims of a token that Airflow itself signed for a task; raises unless it is one."""
    from airflow.api_fastapi.auth.tokens import JWTValidator, get_sig_validation_args
    from airflow.configuration import conf

    issuer = conf.get("api_auth", "jwt_issuer", fallback=None)
    validator = JWTValidator(
        required_claims=frozenset({"aud", "exp", "iat", "sub"} | ({"iss"} if issuer else set())),
        issuer=issuer,
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience"),
        **get_sig_validation_args(make_secret_key_if_needed=False),
    )
    return validator.validated_claims(token)


def _annotations(ti_id: UUID) -> dict[str, str]:
    """The run of a task instance, from Airflow's database."""
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    columns = [getattr(TaskInstance, name) for name in ANNOTATIONS]
    with create_session() as session:
        row = session.execute(select(*columns).where(TaskInstance.id == ti_id)).one()
    return {name: str(value) for name, value in zip(ANNOTATIONS, row, strict=True)}
