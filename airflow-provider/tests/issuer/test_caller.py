"""Whose execution token it is, for each way in which Airflow may sign them."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from cortex_provider.issuer.caller import Callers
from cortex_provider.issuer.errors import Refused

AUDIENCE = "urn:airflow.apache.org:task"


def bearer(ti_id: uuid.UUID) -> str:
    """An execution token as the API server signs it, in the configuration of the moment."""
    from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args

    generator = JWTGenerator(valid_for=600, audience=AUDIENCE, **get_signing_args())
    return generator.generate({"sub": str(ti_id), "scope": "execution"})


def asked(callers: Callers, token: str) -> uuid.UUID:
    scope = {"headers": [(b"host", b"a.example"), (b"authorization", f"Bearer {token}".encode())]}
    return asyncio.run(callers.task_instance(scope))


def sign_with(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str) -> None:
    from airflow.api_fastapi.auth.tokens import key_to_pem

    private = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if kind == "RSA"
        else ed25519.Ed25519PrivateKey.generate()
    )
    path = folder / f"{kind}.pem"
    path.write_bytes(key_to_pem(private))
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_PRIVATE_KEY_PATH", str(path))
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "")


@pytest.mark.parametrize("kind", ["RSA", "Ed25519"])
def test_a_private_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    by_secret = bearer(uuid.uuid4())
    sign_with(monkeypatch, tmp_path, kind)
    ti_id = uuid.uuid4()
    callers = Callers()
    assert asked(callers, bearer(ti_id)) == ti_id
    with pytest.raises(Refused):
        asked(callers, by_secret)


def test_keys_from_a_file_of_trusted_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from airflow.api_fastapi.auth.tokens import JWTGenerator, key_to_jwk_dict

    sign_with(monkeypatch, tmp_path, "RSA")
    token = bearer(uuid.uuid4())
    trusted = tmp_path / "trusted.json"
    monkeypatch.setenv("AIRFLOW__API_AUTH__TRUSTED_JWKS_URL", str(trusted))
    trusted.write_text(json.dumps({"keys": [key_to_jwk_dict(rsa.generate_private_key(65537, 2048))]}))
    with pytest.raises(Refused):
        asked(Callers(), token)
    signer = JWTGenerator(valid_for=600, audience=AUDIENCE)
    trusted.write_text(json.dumps({"keys": [{**key_to_jwk_dict(signer.signing_arg), "alg": "RS256"}]}))  # type: ignore[arg-type]
    asked(Callers(), token)


def test_an_issuer_that_is_configured_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    without = bearer(uuid.uuid4())
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_ISSUER", "https://airflow.example.com")
    ti_id = uuid.uuid4()
    assert asked(Callers(), bearer(ti_id)) == ti_id
    with pytest.raises(Refused):
        asked(Callers(), without)


def test_the_audience_is_the_execution_apis(monkeypatch: pytest.MonkeyPatch) -> None:
    token = bearer(uuid.uuid4())
    monkeypatch.setenv("AIRFLOW__EXECUTION_API__JWT_AUDIENCE", "another")
    with pytest.raises(Refused):
        asked(Callers(), token)
