from __future__ import annotations

import json
from typing import Any

import pytest

from cortex_provider.errors import NotConfigured
from cortex_provider.settings import ConnectionRule, Settings, configured

URL = "https://cortex.example.com"


@pytest.mark.parametrize(
    ("conn_id", "policy", "target"),
    [
        ("cortex_finance_data_publish", "finance-data-publish", None),
        ("cortex_finance_data_publish__aws", "finance-data-publish", "aws"),
        ("cortex_finance-data-publish__bigquery", "finance-data-publish", "bigquery"),
        ("cortex_a1__api", "a1", "api"),
    ],
)
def test_an_id_names_a_policy_and_a_target(conn_id: str, policy: str, target: str | None) -> None:
    assert Settings.parse({"url": URL}).rule(conn_id) == ConnectionRule(policy=policy, target=target)


@pytest.mark.parametrize("conn_id", ["aws_default", "cortex", "Cortex_x", "xcortex_x", ""])
def test_other_ids_are_not_ours(conn_id: str) -> None:
    assert Settings.parse({"url": URL}).rule(conn_id) is None


@pytest.mark.parametrize("conn_id", ["cortex_", "cortex__aws", "cortex_A", "cortex_x__", "cortex_x__AWS", "cortex_x_"])
def test_an_id_with_our_prefix_and_no_policy_is_ours_and_wrong(conn_id: str) -> None:
    with pytest.raises(NotConfigured):
        Settings.parse({"url": URL}).rule(conn_id)


def test_the_map_goes_before_the_prefix() -> None:
    rule = {"policy": "other", "target": "aws", "extra": {"endpoint_url": "http://127.0.0.1:1"}}
    settings = Settings.parse({"url": URL, "connections": {"cortex_x": rule, "aws_default": rule}})
    for conn_id in ("cortex_x", "aws_default"):
        found = settings.rule(conn_id)
        assert found is not None and found.policy == "other"


def test_values_may_be_text_as_from_the_environment() -> None:
    rules = json.dumps({"aws_default": {"policy": "x"}})
    settings = Settings.parse({"url": URL, "connections": rules, "wait_for_approval": "30", "timeout": "5"})
    assert (settings.wait_for_approval, settings.timeout) == (30, 5)
    assert settings.connections["aws_default"].policy == "x"


def test_no_prefix_leaves_the_map_only() -> None:
    settings = Settings.parse({"url": URL, "connections_prefix": "", "connections": {"a": {"policy": "x"}}})
    assert settings.rule("cortex_x") is None
    assert settings.rule("a") is not None


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, "needs url"),
        ({"url": "http://cortex.example.com"}, "https"),
        ({"url": "ftp://127.0.0.1"}, "https"),
        ({"url": "https://user@cortex.example.com"}, "not an address"),
        ({"url": URL, "typo": 1}, "typo"),
        ({"url": URL, "identity": "magic"}, "identity"),
        ({"url": URL, "identity": "file"}, "token_file"),
        ({"url": URL, "identity": "client_credentials", "client_id": "x"}, "token_url and client_secret_file"),
        ({"url": URL, "identity": "development", "issuer_url": "https://issuer.example.com"}, "this machine"),
        ({"url": URL, "wait_for_approval": "soon"}, "whole number"),
        ({"url": URL, "wait_for_approval": -1}, "at most"),
        ({"url": URL, "timeout": 0}, "at least 1"),
        ({"url": URL, "audience": 7}, "audience is not a text"),
        ({"url": URL, "connections": "nope"}, "not JSON"),
        ({"url": URL, "connections": {"a": "x"}}, "not an object"),
        ({"url": URL, "connections": {"a": {"policy": "x", "colour": 1}}}, "colour"),
        ({"url": URL, "connections": {"a": {"policy": "X"}}}, "not the name of a policy"),
        ({"url": URL, "connections": {"a": {"policy": "a--b"}}}, "not the name of a policy"),
        ({"url": URL, "connections": {"a": {"policy": "x", "ttl_seconds": 1}}}, "ttl_seconds"),
        ({"url": URL, "connections": {"a": {"policy": "x", "extra": "x"}}}, "extra"),
    ],
)
def test_faults_are_named(kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(NotConfigured, match=said):
        Settings.parse(kwargs)


def test_a_rule_without_a_policy_is_a_fault() -> None:
    with pytest.raises(NotConfigured, match="policy"):
        Settings.parse({"url": URL, "connections": {"a": {}}})


def test_http_is_for_this_machine() -> None:
    for url in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"):
        assert Settings.parse({"url": url}).url == url


def test_airflows_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured, match="does not name"):
        configured()
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND", "cortex_provider.secrets.CortexBackend")
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS", json.dumps({"url": URL}))
    assert configured().url == URL
