"""A secrets backend behind another, so that a Vault or the like goes on answering what is not Cortex's."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from cortex_provider.errors import NotConfigured


class Fallback:
    """Hands questions on to a backend of another package; without one, it knows nothing."""

    def __init__(self, path: str | None, kwargs: Mapping[str, Any]) -> None:
        self._backend = _load(path, kwargs) if path else None

    def ask(self, method: str, name: str, team_name: str | None = None) -> object:
        """Calls `get_connection`, `get_variable` or `get_config` of the backend; None where there is none."""
        call = getattr(self._backend, method, None)
        if call is None:
            return None
        # Backends from before Airflow 3.2 do not know teams.
        if team_name is not None and "team_name" in inspect.signature(call).parameters:
            return call(name, team_name=team_name)
        return call(name)


def _load(path: str, kwargs: Mapping[str, Any]) -> object:
    module, _, name = path.rpartition(".")
    try:
        backend = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise NotConfigured(f"fallback {path!r} cannot be imported: {error}") from error
    made: object = backend(**kwargs)
    return made
