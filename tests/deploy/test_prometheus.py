"""Alerts and the dashboard load as they are, name what is measured, and each alert has its page."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import metrics
import pytest
import yaml

ROOT = metrics.ROOT
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
TESTS = ROOT / "deploy" / "prometheus" / "alerts_test.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "cortex.json"


@pytest.fixture(scope="session")
def promtool() -> Path:
    found = subprocess.run([ROOT / ".ci" / "promtool"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(found.stdout.strip())


def run(promtool: Path, *arguments: str | Path) -> None:
    done = subprocess.run([promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_the_rules_are_sound(promtool: Path) -> None:
    run(promtool, "check", "rules", RULES)


def test_each_alert_fires_when_it_is_to_and_not_while_all_is_well(promtool: Path) -> None:
    run(promtool, "test", "rules", TESTS)
    cases = yaml.safe_load(TESTS.read_text())["tests"]
    fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case["exp_alerts"]}
    quiet = {case["alertname"] for case in cases[0]["alert_rule_test"]}
    assert fired == quiet == {rule["alert"] for rule in alerts()}


def test_alerts_name_what_is_measured() -> None:
    faults = {rule["alert"]: metrics.faults(rule["expr"]) for rule in alerts()}
    assert not {alert: found for alert, found in faults.items() if found}


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    pages = {rule["annotations"]["runbook_url"] for rule in alerts()}
    assert pages == {f"docs/runbooks/{rule['alert']}.md" for rule in alerts()}
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    kept = {f"docs/runbooks/{page.name}" for page in (ROOT / "docs" / "runbooks").glob("Cortex*.md")}
    assert kept == pages
    for rule in alerts():
        text = (ROOT / rule["annotations"]["runbook_url"]).read_text()
        for title in (f"# {rule['alert']}", "## What is lost", "## Where to look", "## What to do"):
            assert title in text, rule["alert"]
        assert f"]({rule['alert']}.md) | {rule['labels']['severity']} |" in index
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_the_dashboard_asks_for_what_is_measured() -> None:
    assert len(queries()) > 50
    faults = {query: metrics.faults(query) for query in queries()}
    assert not {query: found for query, found in faults.items() if found}


def test_what_the_dashboard_asks_is_promql(promtool: Path, tmp_path: Path) -> None:
    plain = [query.replace("$__rate_interval", "5m") for query in queries()]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(plain)]
    file = tmp_path / "dashboard.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", file)


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert (dashboard["uid"], dashboard["title"]) == ("cortex", "Cortex")
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}", panel["title"]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource", "instance", "route", "policy", "provider"}


def test_a_query_of_something_that_is_not_measured_is_found() -> None:
    assert metrics.faults("sum(rate(cortex_nothing_total[5m]))") == ["cortex_nothing_total is not measured"]
    assert metrics.faults('cortex_jwks_keys{dag="x"}') == ["cortex_jwks_keys has no label dag"]
    assert metrics.faults('cortex_http_request_seconds{le="1"}')
    assert not metrics.faults('max by (issuer) (cortex_jwks_keys{instance=~"$instance",issuer!="a"}) > 0')


def test_what_compose_gives_prometheus_and_grafana_is_sound(promtool: Path) -> None:
    folder = ROOT / "deploy" / "compose"
    run(promtool, "check", "config", "--syntax-only", folder / "prometheus.yaml")
    (job,) = yaml.safe_load((folder / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["job_name"] == "cortex", "the alerts know the job by this name"
    for file in ("datasource.yaml", "dashboards.yaml"):
        assert yaml.safe_load((folder / "grafana" / file).read_text())["apiVersion"] == 1
