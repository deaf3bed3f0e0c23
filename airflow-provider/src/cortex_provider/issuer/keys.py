"""The keys that sign ID tokens, which are never Airflow's own.

They come from one of three places, the first that is configured:

- `[cortex] issuer_key`: PEM text, or a command or secret path that gives it;
- `[cortex] issuer_key_file`: a PEM file, such as a mounted secret;
- otherwise a folder that the issuer fills itself (see `folder`), which several API servers must share.

In the first two the first key signs and the others are only published. To rotate, append the new key, move it to the
front when verifiers had time to fetch it, and remove the old one when its last token has expired.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_provider.issuer import settings
from cortex_provider.issuer.errors import Misconfigured

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

MIN_BITS = 2048
MAX_KEYS = 10
MAX_PEM = 128 * 1024
RELOAD_AFTER = 5.0
"""Seconds for which loaded keys are used before the place that they come from is read again."""

_PEM_KEY = re.compile(rb"-----BEGIN ((?:RSA )?PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class SigningKey:
    """An RSA key and the name that it is published under."""

    kid: str
    private: RSAPrivateKey = field(repr=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Reads an unencrypted PEM private key.

        :raises Misconfigured: when it is no RSA key of at least 2048 bits.
        """
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            # The cause may quote what it read.
            raise Misconfigured("an issuer key is not an unencrypted PEM private key") from None
        if not isinstance(private, RSAPrivateKey) or private.key_size < MIN_BITS:
            raise Misconfigured(f"an issuer key is not an RSA key of at least {MIN_BITS} bits")
        return cls(_thumbprint(private), private)

    def jwk(self) -> dict[str, str]:
        """The public half, as it is published."""
        return {**_public(self.private), "kid": self.kid, "use": "sig", "alg": "RS256"}


@dataclass(frozen=True)
class Keys:
    """The key that signs now, and all that are published."""

    signing: SigningKey
    published: tuple[SigningKey, ...]


class KeyRing:
    """The current keys, read again every few seconds, so that a rotation reaches every API server."""

    def __init__(self, load: Callable[[], Keys], clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._lock = threading.Lock()
        self._held: tuple[float, Keys] | None = None

    def current(self) -> Keys:
        """The keys to use now.

        :raises Misconfigured: when they cannot be read, also when they could be a moment ago.
        """
        with self._lock:
            if self._held is None or self._clock() - self._held[0] >= RELOAD_AFTER:
                self._held = None
                self._held = (self._clock(), self._load())
            return self._held[1]


def load_keys() -> Keys:
    """Reads the keys from the place that the configuration names; makes the first one in a folder of our own.

    :raises Misconfigured: when there are none that can be used.
    """
    if text := settings.issuer_key():
        return _bundle(text.encode(), "[cortex] issuer_key")
    if path := settings.issuer_key_file():
        return _bundle(_read(path), f"[cortex] issuer_key_file {path}")

    from cortex_provider.issuer.folder import KeyFolder

    return KeyFolder(settings.issuer_keys_folder()).keys()


def _bundle(pem: bytes, where: str) -> Keys:
    found = [match.group(0) for match in _PEM_KEY.finditer(pem[: MAX_PEM + 1])]
    if len(pem) > MAX_PEM or not 1 <= len(found) <= MAX_KEYS:
        raise Misconfigured(f"{where} must hold 1 to {MAX_KEYS} PEM private keys")
    keys = tuple(SigningKey.from_pem(text) for text in found)
    if len({key.kid for key in keys}) != len(keys):
        raise Misconfigured(f"{where} holds a key twice")
    return Keys(keys[0], keys)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if path.stat().st_mode & 0o022:
                raise Misconfigured(f"{path} can be written by others than its owner")
            return file.read(MAX_PEM + 1)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from None


def _thumbprint(private: RSAPrivateKey) -> str:
    """The key's name: the digest of its required members, as RFC 7638 says."""
    canonical = json.dumps(_public(private), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _public(private: RSAPrivateKey) -> dict[str, str]:
    numbers = private.public_key().public_numbers()
    return {"kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}


def _integer(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
