"""The chart lints, renders with the least and with every option, and what it renders is what Kubernetes takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from metrics import ROOT

CHART = ROOT / "deploy" / "helm" / "cortex"
SAMPLES = {name: CHART / "ci" / f"{name}.yaml" for name in ("least", "all")}
# The oldest that the chart takes, and the newest whose schemas there are.
VERSIONS = ("1.30", "1.37")
# Of the Prometheus operator, not of Kubernetes.
FOREIGN = {"ServiceMonitor"}


def helm(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    program = Path(os.environ["CORTEX_TEST_DEPLOY_TOOLS"]) / "helm"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


def template(*arguments: str | Path, home: Path, version: str = VERSIONS[-1]) -> subprocess.CompletedProcess[str]:
    return helm("template", "prod", CHART, "--kube-version", version, *arguments, home=home)


def render(sample: str, home: Path, version: str = VERSIONS[-1]) -> list[dict[str, Any]]:
    done = template("--namespace", "cortex", "--values", SAMPLES[sample], home=home, version=version)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def only(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [document for document in documents if document["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document["spec"]["template"]["spec"] for document in documents if document["kind"] in ("Deployment", "Job")]


@pytest.mark.parametrize("sample", SAMPLES)
def test_it_lints(sample: str, tmp_path: Path) -> None:
    done = helm("lint", "--strict", CHART, "--values", SAMPLES[sample], home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_kubernetes_takes_what_it_renders(sample: str, version: str, tmp_path: Path) -> None:
    documents = render(sample, tmp_path, version)
    for document in documents:
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, version, strict=True)
    kinds = {"ConfigMap", "Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"}
    more = {"HorizontalPodAutoscaler"} if sample == "least" else {"ServiceMonitor"}
    assert {document["kind"] for document in documents} == kinds | more


def test_a_field_that_is_misspelt_is_found(tmp_path: Path) -> None:
    deployment = only(render("least", tmp_path), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("left_out", ["config", "database", "keys"])
def test_what_has_to_be_set_is_asked_for(left_out: str, tmp_path: Path) -> None:
    values = yaml.safe_load(SAMPLES["least"].read_text())
    del values[left_out]
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = template("--values", file, home=tmp_path)
    assert done.returncode != 0 and left_out in done.stderr


@pytest.mark.parametrize("sample", SAMPLES)
def test_pods_may_do_little(sample: str, tmp_path: Path) -> None:
    for pod in pods(render(sample, tmp_path)):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] >= 10_000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


@pytest.mark.parametrize("sample", SAMPLES)
def test_secrets_are_references(sample: str, tmp_path: Path) -> None:
    documents = render(sample, tmp_path)
    assert "Secret" not in {document["kind"] for document in documents}
    for pod in pods(documents):
        urls = [entry for entry in pod["containers"][0]["env"] if entry["name"] == "DATABASE_URL"]
        assert [set(url) for url in urls] == [{"name", "valueFrom"}]


@pytest.mark.parametrize(("sample", "drain"), [("least", 25), ("all", 40)])
def test_a_pod_has_the_time_that_its_drain_takes(sample: str, drain: int, tmp_path: Path) -> None:
    (pod,) = (pod for pod in pods(render(sample, tmp_path)) if pod["containers"][0]["name"] == "cortex")
    (container,) = pod["containers"]
    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod["terminationGracePeriodSeconds"] >= before + drain + 5
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert told["CORTEX__SERVER__DRAIN_TIMEOUT_S"] == str(drain)
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "a database that is away restarts nobody"


def test_every_mount_has_its_volume(tmp_path: Path) -> None:
    for sample in SAMPLES:
        for pod in pods(render(sample, tmp_path)):
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            mounts = {mount["name"] for mount in pod["containers"][0].get("volumeMounts", [])}
            assert mounts == volumes


def test_by_default_three_replicas_stay_and_only_one_goes_at_a_time(tmp_path: Path) -> None:
    documents = render("least", tmp_path)
    assert only(documents, "HorizontalPodAutoscaler")["spec"]["minReplicas"] == 3
    assert only(documents, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    rolling = only(documents, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    assert only(render("all", tmp_path), "Deployment")["spec"]["replicas"] == 5


def test_another_configuration_means_other_pods(tmp_path: Path) -> None:
    def checksum(sample: str) -> str:
        pod = only(render(sample, tmp_path), "Deployment")["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/config"])

    assert checksum("least") != checksum("all")


def test_only_the_named_get_in_and_only_to_the_named_it_gets_out(tmp_path: Path) -> None:
    spec = only(render("all", tmp_path), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = spec["ingress"]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "airflow"}}}]
    assert {"ports": [{"protocol": "TCP", "port": 6432}], "to": [{"ipBlock": {"cidr": "10.1.2.0/24"}}]} in spec[
        "egress"
    ]
    assert all(rule["ports"] for rule in spec["egress"])


def test_a_metadata_server_is_asked_only_where_that_is_wanted(tmp_path: Path) -> None:
    def reached(sample: str) -> set[str]:
        rules = only(render(sample, tmp_path), "NetworkPolicy")["spec"]["egress"]
        peers = [peer for rule in rules for peer in rule.get("to", [])]
        return {peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer}

    servers = {"169.254.169.254/32", "169.254.170.23/32", "169.254.169.252/32"}
    assert servers <= reached("all")
    assert not servers & reached("least")
