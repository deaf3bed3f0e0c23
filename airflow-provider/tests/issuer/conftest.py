"""A metadata database with running tasks in it, and an API server around the issuer."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cortex_provider.issuer.folder import KeyFolder
from cortex_provider.issuer.keys import KeyRing

try:
    import airflow.sdk  # noqa: F401
except ImportError:
    # Only Airflow 3 has the Execution API.
    collect_ignore_glob = ["test_*.py"]

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

AUDIENCE = "urn:airflow.apache.org:task"
BASE_URL = "https://airflow.example.com"


@pytest.fixture(scope="session")
def tables() -> None:
    """All tables of Airflow's, in its SQLite database."""
    import airflow.models
    from airflow import settings
    from airflow.models.base import Base

    airflow.models.import_all_models()  # type: ignore[no-untyped-call]
    Base.metadata.create_all(settings.engine)


@dataclass
class Task:
    """A task instance in the database."""

    dag_id: str
    id: uuid.UUID = field(default_factory=uuid.uuid4)

    def set(self, **columns: object) -> None:
        """Changes its row."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import update

        with create_session() as session:
            session.execute(update(TaskInstance.__table__).where(TaskInstance.id == self.id).values(**columns))

    def bearer(self, **claims: object) -> str:
        """Its execution token, as the API server signs it; `claims` replace those of the same name."""
        from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args

        generator = JWTGenerator(valid_for=600, audience=AUDIENCE, **get_signing_args())
        return generator.generate({"sub": str(self.id), "scope": "execution", **claims})


MakeTask = Callable[..., Task]


@pytest.fixture
def make_task(tables: None) -> MakeTask:
    """Writes a running task instance of a DAG of its own; arguments replace columns of any of the tables."""

    def make(**columns: Any) -> Task:
        task = Task(dag_id=f"finance_{uuid.uuid4().hex[:8]}")
        _insert(task, columns)
        return task

    return make


def _insert(task: Task, columns: dict[str, Any]) -> None:
    from airflow.models.dag import DagModel, DagTag
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import insert

    bundle = columns.pop("bundle_name", f"bundle_{task.dag_id}")
    version = {"id": uuid.uuid4(), "version_number": 1, "bundle_name": columns.pop("version_bundle", bundle)}
    tags = columns.pop("tags", [])
    team = columns.pop("team", None)
    rows: list[tuple[Any, dict[str, Any]]] = [
        (DagBundleModel, {"name": bundle}),
        (
            DagModel,
            {
                "bundle_name": bundle,
                "owners": columns.pop("owners", None),
                "max_active_tasks": 1,
                "max_consecutive_failed_dag_runs": 0,
                "has_task_concurrency_limits": False,
            },
        ),
        (DagVersion, version),
        (
            DagRun,
            {
                "run_id": "r1",
                "run_type": "scheduled",
                "state": "running",
                "run_after": datetime.now(timezone.utc),
                **columns.pop("run", {}),
            },
        ),
        (
            TaskInstance,
            {
                "id": task.id,
                "task_id": "publish",
                "run_id": "r1",
                "pool": "default_pool",
                "state": "running",
                "try_number": 1,
                "map_index": -1,
                "dag_version_id": version["id"],
                **columns,
            },
        ),
        *((DagTag, {"name": name}) for name in tags),
    ]
    with create_session() as session:
        for model, values in rows:
            dag_id = {} if model is DagBundleModel else {"dag_id": task.dag_id}
            session.execute(insert(model.__table__).values(**dag_id, **values))
        if team:
            _own(session, team, bundle)


def _own(session: Any, team: str, bundle: str) -> None:
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.team import Team

    owner = Team(name=team)
    session.add(owner)
    session.get(DagBundleModel, bundle).teams = [owner]


@pytest.fixture
def base_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the API server says that it is."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", BASE_URL)
    return BASE_URL


@pytest.fixture(scope="session")
def keys_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one key, which is made once because that takes time."""
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
def keys(keys_folder: Path) -> KeyRing:
    """A key ring over that folder."""
    return KeyRing(KeyFolder(keys_folder).keys)


@pytest.fixture(scope="session")
def execution_api() -> FastAPI:
    """Airflow's own Execution API."""
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app

    return create_task_execution_api_app()


@pytest.fixture
def api_server(tables: None, base_url: str, keys: KeyRing, execution_api: FastAPI) -> Iterator[TestClient]:
    """The Execution API, with the issuer's two parts mounted as the API server mounts them."""
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from cortex_provider.issuer.documents import IssuerDocuments
    from cortex_provider.issuer.endpoint import IdTokenEndpoint
    from cortex_provider.issuer.settings import PREFIX

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with execution_api.router.lifespan_context(execution_api):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/execution", execution_api)
    app.mount(PREFIX, IssuerDocuments(keys))
    app.add_middleware(IdTokenEndpoint, keys=keys)
    with TestClient(app, base_url=BASE_URL) as client:
        yield client
