"""What the issuer publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cortex_provider.issuer.errors import Misconfigured
from cortex_provider.issuer.keys import KeyRing

if TYPE_CHECKING:
    from starlette.testclient import TestClient

DISCOVERY = "/cortex-oidc/.well-known/openid-configuration"
JWKS = "/cortex-oidc/jwks"


def test_discovery_names_the_issuer_and_its_keys(api_server: TestClient) -> None:
    answer = api_server.get(DISCOVERY)
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["issuer"] == "https://airflow.example.com/cortex-oidc"
    assert document["jwks_uri"] == f"{document['issuer']}/jwks"
    assert document["id_token_signing_alg_values_supported"] == ["RS256"]


@pytest.mark.parametrize("base_url", ["https://a.example/air/flow", "https://a.example/air/flow/"])
def test_a_base_url_with_a_path(api_server: TestClient, monkeypatch: pytest.MonkeyPatch, base_url: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert api_server.get(DISCOVERY).json()["issuer"] == "https://a.example/air/flow/cortex-oidc"


def test_below_a_path_the_documents_are_where_discovery_says(base_url: str, keys: KeyRing) -> None:
    """As the API server does it: it knows its path, and the proxy in front leaves it in the request."""
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from cortex_provider.issuer.documents import IssuerDocuments

    app = FastAPI(root_path="/air/flow")
    app.mount("/cortex-oidc", IssuerDocuments(keys))
    client = TestClient(app)
    for path in (f"/air/flow{DISCOVERY}", f"/air/flow{JWKS}", DISCOVERY, JWKS):
        assert client.get(path).status_code == 200, path


def test_only_public_halves_are_published(api_server: TestClient, keys: KeyRing) -> None:
    answer = api_server.get(JWKS)
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}
    assert key["kid"] == keys.current().signing.kid
    assert "max-age=300" in answer.headers["cache-control"]


def test_nothing_else_is_there(api_server: TestClient) -> None:
    for path in ("", "/", "/jwks/", "/.well-known/jwks.json", "/../jwks"):
        assert api_server.get(f"/cortex-oidc{path}").status_code == 404, path
    assert api_server.post(JWKS).status_code == 405
    assert api_server.head(JWKS).status_code == 200


def test_without_keys_the_answer_says_no_more_than_that(
    api_server: TestClient, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise Misconfigured("/secret/place cannot be read")

    monkeypatch.setattr(keys, "current", broken)
    answer = api_server.get(JWKS)
    assert answer.status_code == 503
    assert answer.json() == {"error": "issuer_not_configured"}
