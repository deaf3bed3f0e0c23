"""Airflow's configuration, as the issuer reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortex_provider.issuer import settings
from cortex_provider.issuer.errors import Misconfigured


@pytest.mark.parametrize(
    ("base_url", "issuer"),
    [
        ("https://a.example", "https://a.example/cortex-oidc"),
        ("https://a.example/", "https://a.example/cortex-oidc"),
        ("http://127.0.0.1:8080/air/flow//", "http://127.0.0.1:8080/air/flow/cortex-oidc"),
    ],
)
def test_the_issuer_is_below_the_base_url(monkeypatch: pytest.MonkeyPatch, base_url: str, issuer: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert settings.issuer_url() == issuer


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "/airflow",
        "airflow.example.com",
        "ftp://a.example",
        "https://a.example/?x=1",
        "https://A.example",
        "https://a.example:443",
        "https://u:p@a.example",
    ],
)
def test_without_a_url_there_is_no_issuer(monkeypatch: pytest.MonkeyPatch, base_url: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    with pytest.raises(Misconfigured, match=r"\[api\] base_url must be"):
        settings.issuer_url()


def test_the_defaults() -> None:
    assert settings.audiences() == {"cortex"}
    assert settings.token_lifetime() == 300
    assert settings.issuer_key() == ""
    assert settings.issuer_key_file() is None
    assert settings.issuer_keys_folder().parts[-2:] == ("cortex", "issuer-keys")


def test_what_is_set_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_AUDIENCES", " a , https://b.example ,")
    monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_KEYS_FOLDER", str(tmp_path))
    assert settings.audiences() == {"a", "https://b.example"}
    assert settings.issuer_keys_folder() == tmp_path


@pytest.mark.parametrize(
    "names",
    [",", "a b", "x" * 256, "caf\N{LATIN SMALL LETTER E WITH ACUTE}", ",".join("abcdefghijklmnopqrstu")],
)
def test_odd_audiences_are_refused(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_AUDIENCES", names)
    with pytest.raises(Misconfigured, match=r"\[cortex\] issuer_audiences"):
        settings.audiences()


@pytest.mark.parametrize("seconds", ["301", "29", "0", "-1", "5m", "60.0"])
def test_a_lifetime_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("AIRFLOW__CORTEX__TOKEN_LIFETIME", seconds)
    with pytest.raises(Misconfigured, match="token_lifetime is 30 to 300 seconds"):
        settings.token_lifetime()
