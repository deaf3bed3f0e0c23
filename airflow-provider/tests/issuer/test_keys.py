"""Keys from somebody else: PEM text or a file of it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from cortex_provider.issuer.errors import Misconfigured
from cortex_provider.issuer.keys import MAX_KEYS, RELOAD_AFTER, KeyRing, Keys, SigningKey, load_keys

Encryption = serialization.KeySerializationEncryption


def pem(key: PrivateKeyTypes, encryption: Encryption | None = None) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption or serialization.NoEncryption()
    ).decode()


def new_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@pytest.fixture(scope="module")
def two() -> tuple[str, str]:
    """Two keys, which are made once because that takes time."""
    return pem(new_key()), pem(new_key())


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets `[cortex] issuer_key`."""
    return lambda text: monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_KEY", text)


def kids(keys: Keys) -> list[str]:
    return [key.kid for key in keys.published]


def test_the_first_key_signs_and_all_are_published(configure: Callable[[str], None], two: tuple[str, str]) -> None:
    expected = [SigningKey.from_pem(text.encode()).kid for text in two]
    configure("some text\n" + "".join(two))
    keys = load_keys()
    assert keys.signing.kid == expected[0]
    assert kids(keys) == expected


def test_a_file_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two: tuple[str, str]) -> None:
    path = tmp_path / "keys.pem"
    monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_KEY_FILE", str(path))
    now = 0.0
    ring = KeyRing(load_keys, clock=lambda: now)
    path.write_text(two[0])
    first = ring.current()
    path.write_text(two[1] + two[0])
    assert ring.current() is first
    now = RELOAD_AFTER
    assert kids(ring.current())[1:] == kids(first)
    path.unlink()
    now = 2 * RELOAD_AFTER
    with pytest.raises(Misconfigured, match="cannot be read"):
        ring.current()


def test_a_file_that_others_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two: tuple[str, str]
) -> None:
    path = tmp_path / "keys.pem"
    path.write_text(two[0])
    path.chmod(0o620)
    monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_KEY_FILE", str(path))
    with pytest.raises(Misconfigured, match="can be written by others"):
        load_keys()


def test_what_is_no_good_key_is_refused_without_a_word_of_it(
    configure: Callable[[str], None], two: tuple[str, str]
) -> None:
    garbled = two[0].replace("MI", "!!", 1)
    encrypted = pem(new_key(), serialization.BestAvailableEncryption(b"phrase"))
    for text, reason in (
        ("nothing", "must hold 1 to"),
        (garbled, "not an unencrypted PEM private key"),
        (encrypted, "must hold 1 to"),
        (pem(new_key(1024)), "at least 2048 bits"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "not an RSA key"),
        (two[0] * 2, "holds a key twice"),
        (two[0] * (MAX_KEYS + 1), "must hold 1 to"),
        ("x" * 200_000 + two[0], "must hold 1 to"),
    ):
        configure(text)
        with pytest.raises(Misconfigured, match=reason) as refusal:
            load_keys()
        assert refusal.value.__cause__ is None
        assert text.splitlines()[-1] not in str(refusal.value)


def test_a_keys_name_is_its_thumbprint(two: tuple[str, str]) -> None:
    key = SigningKey.from_pem(two[0].encode())
    members = {name: key.jwk()[name] for name in ("e", "kty", "n")}
    canonical = json.dumps(members, separators=(",", ":")).encode()
    assert key.kid == base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).decode().rstrip("=")
    assert (
        int.from_bytes(base64.urlsafe_b64decode(members["n"] + "=="), "big")
        == key.private.public_key().public_numbers().n
    )
