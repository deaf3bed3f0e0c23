"""A real Airflow with the package `airflow-provider-cortex` in it, on a loopback port.

API server, scheduler, DAG processor and triggerer with the LocalExecutor on SQLite, in a folder that is deleted
afterwards. The package is built into a wheel and unpacked beside, so that Airflow finds it by its entry points as after
`pip install`. The first line on standard output is JSON: {"base_url", "issuer", "home"}. It ends when its standard
input does, so that it never outlives the test that started it. Everybody is an admin: GET {base_url}/auth/token.

Run it with the Python of an Airflow environment.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from household import Household, guarded

PACKAGE = Path(__file__).resolve().parents[3] / "airflow-provider"
DEADLINE = 240.0
"""Seconds until all parts must be healthy, on a machine that is busy with everything else."""

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
PARTS = {"metadatabase", "scheduler", "dag_processor", "triggerer"}


def main() -> int:
    options = _options()
    return guarded(lambda household: serve(household, options))


def serve(household: Household, options: argparse.Namespace) -> None:
    """Starts everything, says where it is, and stays until it is time to end."""
    port = options.port or _free_port()
    base_url = f"http://127.0.0.1:{port}{options.base_path}"
    environment = {**_inherited(), **_environment(household.folder, base_url, port, options)}
    _install(household, environment)
    airflow = [sys.executable, "-m", "airflow"]
    household.run("migrate", [*airflow, "db", "migrate"], environment)
    for component in COMPONENTS:
        quiet = ["--skip-serve-logs"] if component in ("scheduler", "triggerer") else []
        household.start(component, [*airflow, component, *quiet], environment)
    _wait_until_healthy(household, base_url)
    where = {"base_url": base_url, "issuer": f"{base_url}/cortex-oidc", "home": str(household.folder)}
    print(json.dumps(where), flush=True)
    while True:
        household.rest(1.0)
        household.check()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dags", required=True, type=Path, help="the folder of the DAGs")
    parser.add_argument("--cortex-url", help="the broker, for the workers' secrets backend")
    parser.add_argument("--cortex-kwargs", type=json.loads, default={}, help="more of that backend's kwargs, as JSON")
    parser.add_argument("--port", type=int, help="where to listen, for a broker that must know the issuer beforehand")
    parser.add_argument("--base-path", default="", help="a path that the API server is below, such as /airflow")
    parser.add_argument(
        "--config", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any option of Airflow's"
    )
    return parser.parse_args()


def _inherited() -> dict[str, str]:
    """Our environment, which may hold ambient credentials for a test, without another Airflow's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}


def _environment(home: Path, base_url: str, port: int, options: argparse.Namespace) -> dict[str, str]:
    config = {
        "core.dags_folder": str(options.dags.resolve()),
        "core.load_examples": "False",
        "core.executor": "LocalExecutor",
        "core.parallelism": "4",
        "core.dags_are_paused_at_creation": "False",
        "core.simple_auth_manager_all_admins": "True",
        "core.execution_api_server_url": f"{base_url}/execution/",
        "api.base_url": base_url,
        "api.host": "127.0.0.1",
        "api.port": str(port),
        "api.workers": "1",
        "api_auth.jwt_secret": secrets.token_urlsafe(64),
        "dag_processor.refresh_interval": "10",
        "dag_processor.min_file_process_interval": "10",
        "usage_data_collection.enabled": "False",
    }
    if options.cortex_url:
        config["workers.secrets_backend"] = "cortex_provider.secrets.CortexBackend"
        config["workers.secrets_backend_kwargs"] = json.dumps({"url": options.cortex_url, **options.cortex_kwargs})
    for setting in options.config:
        name, _, value = setting.partition("=")
        config[name] = value
    variables = {f"AIRFLOW__{name.replace('.', '__', 1).upper()}": value for name, value in config.items()}
    return {**variables, "AIRFLOW_HOME": str(home / "airflow"), "PYTHONPATH": str(home / "site")}


def _install(household: Household, environment: dict[str, str]) -> None:
    """Builds the package's wheel and unpacks it where Airflow looks for modules and their entry points."""
    folder = household.folder / "wheel"
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    household.run("wheel", ["env", "-C", str(PACKAGE), *build], environment)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(household.folder / "site")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(household: Household, base_url: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not _healthy(base_url):
        household.check()
        if time.monotonic() > deadline:
            words = "\n".join(f"== {name}\n{household.last_words(name)}" for name in COMPONENTS)
            raise RuntimeError(f"Airflow is not healthy after {DEADLINE:.0f} s:\n{words}")
        household.rest(0.5)


def _healthy(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310
            states = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError):
        return False
    return all((states.get(part) or {}).get("status") == "healthy" for part in PARTS)


if __name__ == "__main__":
    sys.exit(main())
