"""What others see of the package."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from cortex_provider import __version__
from cortex_provider.compat import AIRFLOW_3
from cortex_provider.get_provider_info import get_provider_info

SOURCE = Path(__file__).parents[1] / "src" / "cortex_provider"


def test_airflow_accepts_the_description() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    import airflow

    schema = Path(str(airflow.__file__)).parent / "provider_info.schema.json"
    info = get_provider_info()
    jsonschema.validate(info, json.loads(schema.read_text()))
    assert info["versions"] == [__version__]


def test_every_class_that_it_names_is_there() -> None:
    info = get_provider_info()
    names = [*info["secrets-backends"], *info["extra-links"]]
    names += [kind["hook-class-name"] for kind in info["connection-types"]]
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.skipif(not AIRFLOW_3, reason="the examples are for Airflow 3")
@pytest.mark.parametrize("name", ["three_clouds", "approval", "mapped", "explicit"])
def test_the_examples_make_dags(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("three_clouds", "approval", "mapped"):
        pytest.importorskip("airflow.providers.amazon.aws.hooks.s3")
    from airflow.sdk import DAG
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    module = f"cortex_provider.example_dags.{name}"
    sys.modules.pop(module, None)
    DagContext.autoregistered_dags.clear()
    monkeypatch.setattr(DagContext, "current_autoregister_module_name", module)
    importlib.import_module(module)
    dags = [dag for dag, _ in DagContext.autoregistered_dags]
    assert len(dags) == 1
    assert isinstance(dags[0], DAG) and dags[0].tasks
    assert len((SOURCE / "example_dags" / f"{name}.py").read_text().splitlines()) < 50
