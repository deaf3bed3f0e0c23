"""The compose file is one that compose reads, and what it names is there. No engine runs here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from metrics import ROOT

COMPOSE = ROOT / "deploy" / "compose"
# Containers that nobody here wrote may need to write to their own file system.
OURS = ("cortex", "policies", "idp")


@pytest.fixture(scope="session")
def services() -> dict[str, Any]:
    program = Path(os.environ["CORTEX_TEST_DEPLOY_TOOLS"]) / "composecheck"
    done = subprocess.run([program, ROOT / "docker-compose.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def config() -> dict[str, Any]:
    return tomllib.loads((COMPOSE / "cortex.toml").read_text())


def test_a_file_that_compose_refuses_is_found(tmp_path: Path) -> None:
    program = Path(os.environ["CORTEX_TEST_DEPLOY_TOOLS"]) / "composecheck"
    for wrong in ("services: {a: {image: b, depends_on: [nobody]}}", "services: {a: {imag: b}}", "services: {a: {}}"):
        (tmp_path / "compose.yml").write_text(wrong)
        assert subprocess.run([program, tmp_path / "compose.yml"], capture_output=True).returncode != 0, wrong


def test_everything_that_is_mounted_or_built_from_is_there(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), f"{name}: {volume['source']}"
                assert volume["read_only"], f"{name}: {volume['source']}"
        if build := service.get("build"):
            assert (Path(build["context"]) / build["dockerfile"]).is_file(), name


def test_what_is_ours_may_do_little(services: dict[str, Any]) -> None:
    for name in OURS:
        service = services[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_ports_are_published_on_loopback_alone(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published and all(port["host_ip"] == "127.0.0.1" for port in published)


def test_everybody_means_the_same_addresses(services: dict[str, Any]) -> None:
    """An address in one file is where another service listens: in the one namespace that all of them share."""
    together = [name for name, service in services.items() if service.get("network_mode") == "service:here"]
    assert {"cortex", "idp", "airflow", "policies"} <= set(together)
    ports = {port["target"] for port in services["here"]["ports"]}
    issuers = {issuer["name"]: issuer for issuer in config()["issuers"]}
    airflow = services["airflow"]["environment"]
    assert issuers["prod"]["iss"] == f"{airflow['AIRFLOW__API__BASE_URL']}/cortex-oidc"
    assert airflow["AIRFLOW__API__BASE_URL"] == f"http://localhost:{airflow['AIRFLOW__API__PORT']}"
    assert airflow["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"{airflow['AIRFLOW__API__BASE_URL']}/execution/"
    backend = json.loads(airflow["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"])
    assert backend["url"] == config()["server"]["public_url"]
    idp = (COMPOSE / "idp" / "idp.mjs").read_text()
    (port,) = re.findall(r"port: \{ type: 'string', default: '(\d+)' \}", idp)
    assert issuers["staff"]["iss"] == f"http://localhost:{port}"
    assert f"default: '{config()['server']['public_url']}'" in idp
    for url in (issuers["prod"]["iss"], issuers["staff"]["iss"], config()["server"]["public_url"]):
        assert int(re.findall(r":(\d+)", url)[0]) in ports


def test_groups_and_clients_are_those_of_the_identity_provider() -> None:
    idp = (COMPOSE / "idp" / "idp.mjs").read_text()
    groups = set(re.findall(r"\w+: \['([\w-]+)'\]", idp))
    for role in config()["roles"].values():
        assert {group.removeprefix("staff/") for group in role} <= groups
    for policy in (COMPOSE / "policies").glob("*.yaml"):
        approval = yaml.safe_load(policy.read_text()).get("approval", {})
        assert set(approval.get("approvers", {}).get("groups", [])) <= groups
    staff = next(issuer for issuer in config()["issuers"] if issuer["name"] == "staff")
    for client in (config()["sign_in"]["client_id"], staff["audience"]):
        assert f"client('{client}'" in idp


def test_versions_are_those_that_are_tested() -> None:
    node = json.loads((ROOT / "tests" / "counterparts" / "node" / "package.json").read_text())
    ours = json.loads((COMPOSE / "idp" / "package.json").read_text())
    for package, version in ours["dependencies"].items():
        assert node["dependencies"][package] == version
    (tested,) = re.findall(
        r"^apache-airflow==([\d.]+)", (ROOT / "tests" / "counterparts" / "python" / "airflow3.in").read_text(), re.M
    )
    assert f"FROM apache/airflow:{tested}\n" in (COMPOSE / "airflow.Dockerfile").read_text()


def test_each_task_of_the_dag_is_named_by_a_policy() -> None:
    dag = (COMPOSE / "dags" / "hello_cortex.py").read_text()
    for policy in (COMPOSE / "policies").glob("*.yaml"):
        document = yaml.safe_load(policy.read_text())
        assert document["who"]["dags"] == ["hello_cortex"] and 'DAG("hello_cortex"' in dag
        assert f'"{document["name"]}"' in dag
        (task,) = document["who"]["tasks"]
        assert f'task_id="{task}"' in dag or f"def {task}(" in dag


def kept(context: Path) -> list[str]:
    """What a .dockerignore that begins with `*` lets into an image's build."""
    lines = (context / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    return [line[1:] for line in lines if line.startswith("!")]


def test_what_is_built_from_is_not_ignored() -> None:
    ours = kept(ROOT)
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    for needed in [*workspace, "Cargo.toml", "Cargo.lock", "migrations", "airflow-provider"]:
        manifest = f"{needed}/Cargo.toml" if needed in workspace else needed
        inside = any(manifest == entry or manifest.startswith(f"{entry}/") for entry in ours)
        assert inside and (ROOT / needed).exists(), needed
    # Cargo wants the targets of every member to be there, though it builds one alone.
    for member in workspace:
        targets = tomllib.loads((ROOT / member / "Cargo.toml").read_text())
        for kind in ("bin", "test", "bench", "example"):
            for target in targets.get(kind, []):
                path = os.path.relpath((ROOT / member / target["path"]).resolve(), ROOT)
                assert any(path.startswith(f"{entry}/") for entry in ours), path
    idp = COMPOSE / "idp"
    copied = re.findall(r"^COPY ([^\n]+) \./$", (idp / "Dockerfile").read_text(), re.M)
    assert {name for line in copied for name in line.split()} == set(kept(idp))


def test_the_image_is_what_it_says() -> None:
    image = (ROOT / "Dockerfile").read_text()
    assert "\nFROM scratch\n" in image and "\nUSER 10001:10001\n" in image
    assert "target-feature=+crt-static" in image and "--locked" in image
    assert 'CMD ["cortex", "health"]' in image
    (version,) = re.findall(r"^FROM rust:([\d.]+)-", image, re.M)
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    assert toolchain.startswith(version)


def test_airflow_reads_the_dag(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": str(tmp_path),
        "PYTHONPATH": f"{ROOT / 'airflow-provider' / 'src'}:{COMPOSE / 'dags'}",
    }
    program = "import json, hello_cortex; print(json.dumps(sorted(hello_cortex.dag.task_ids)))"
    python = Path(os.environ["CORTEX_AIRFLOW3_VENV"]) / "bin" / "python"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["read", "write"]
