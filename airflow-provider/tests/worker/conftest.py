from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.broker import TOKEN, Broker
from support.task import running

from cortex_provider.leases import Leases, leases_for
from cortex_provider.secrets import CortexBackend
from cortex_provider.settings import Settings


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.stop()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


@pytest.fixture
def kwargs(broker: Broker, token_file: Path) -> dict[str, Any]:
    """What the backend is configured with: a token from a file, which works on every Airflow."""
    return {"url": broker.url, "identity": "file", "token_file": str(token_file)}


@pytest.fixture
def leases(kwargs: dict[str, Any]) -> Callable[..., Leases]:
    return lambda **more: leases_for(Settings.parse({**kwargs, **more}))


@pytest.fixture
def backend(kwargs: dict[str, Any]) -> Callable[..., CortexBackend]:
    return lambda **more: CortexBackend(**kwargs, **more)


@pytest.fixture
def task() -> Iterator[dict[str, Any]]:
    with running() as context:
        yield context
