"""A folder of keys that the issuer makes itself.

A file's name says from when its key signs: `20260102T030405Z-<kid>.pem`. All keys in the folder are published, so a key
that is to sign later is known to verifiers by then. The newest whose time has come signs. Every API server must see
the same folder; changes are made under a lock in it, and a file appears in it whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cortex_provider.issuer.errors import Misconfigured
from cortex_provider.issuer.keys import MAX_KEYS, MAX_PEM, MIN_BITS, Keys, SigningKey
from cortex_provider.issuer.settings import MAX_LIFETIME

LEEWAY = 60
"""Seconds that a verifier's clock may be behind ours."""

_NAME = re.compile(r"(\d{8}T\d{6}Z)-[\w-]{43}\.pem")
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class StoredKey:
    """A key in the folder, and the time from which it signs."""

    key: SigningKey
    signs_from: datetime
    path: Path


def utc_now() -> datetime:
    """The time, to the second, as the names of files have it."""
    return datetime.now(timezone.utc).replace(microsecond=0)


class KeyFolder:
    """The keys in one folder. All methods raise `Misconfigured` when the folder or a key in it cannot be used."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self._path = path
        self._clock = clock

    def keys(self) -> Keys:
        """What to sign with and what to publish; makes the first key of an empty folder."""
        stored = self.stored()
        if not stored:
            stored = self._make_first()
        return Keys(self.signing(stored).key, tuple(one.key for one in stored))

    def stored(self) -> list[StoredKey]:
        """All keys in the folder, the one that signs last at the end. Empty when there is no folder."""
        try:
            names = sorted(path.name for path in self._path.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Misconfigured(f"{self._path} cannot be read: {error.strerror}") from None
        return [self._stored(name) for name in names if _NAME.fullmatch(name)]

    def signing(self, stored: list[StoredKey]) -> StoredKey:
        """The one of these that signs now: the newest whose time has come, or the first of all."""
        now = self._clock()
        return next((one for one in reversed(stored) if one.signs_from <= now), stored[0])

    def rotate(self, overlap: timedelta) -> StoredKey:
        """Makes a new key, which is published now and signs after the overlap."""
        with self._locked():
            stored = self.stored()
            if len(stored) >= MAX_KEYS:
                raise Misconfigured(f"{self._path} holds {MAX_KEYS} keys already: retire one first")
            if stored and stored[-1].signs_from > self._clock():
                raise Misconfigured(f"the key {stored[-1].key.kid} is waiting to sign already")
            return self._make(self._clock() + overlap)

    def retire(self, kid: str, force: bool = False) -> StoredKey:
        """Deletes a key, so that what it signed is no longer accepted.

        :param force: also when tokens that it signed may still be alive; for a key that leaked.
        :raises Misconfigured: when it is unknown or signs now, or tokens that it signed may still be alive.
        """
        with self._locked():
            stored = self.stored()
            victim = next((one for one in stored if one.key.kid == kid), None)
            if victim is None:
                raise Misconfigured(f"{self._path} has no key {kid}")
            signing = self.signing(stored)
            if victim is signing:
                raise Misconfigured(f"the key {kid} signs now: rotate first")
            last_token_ends = signing.signs_from + timedelta(seconds=MAX_LIFETIME + LEEWAY)
            if not force and victim.signs_from < signing.signs_from and self._clock() < last_token_ends:
                raise Misconfigured(f"tokens that {kid} signed may live until {last_token_ends:%H:%M:%S} UTC")
            victim.path.unlink()
            return victim

    def _make_first(self) -> list[StoredKey]:
        with self._locked():
            # Another worker may have made it while this one waited.
            return self.stored() or [self._make(self._clock())]

    def _make(self, signs_from: datetime) -> StoredKey:
        key, pem = _new_key()
        while key.kid.startswith("-"):
            # A command would take it for an option.
            key, pem = _new_key()
        path = self._path / f"{signs_from.strftime(_TIME)}-{key.kid}.pem"
        try:
            _write(path, pem)
        except OSError as error:
            raise Misconfigured(f"{path} cannot be written: {error.strerror}") from None
        return StoredKey(key, signs_from, path)

    def _stored(self, name: str) -> StoredKey:
        path = self._path / name
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise Misconfigured(f"{path} can be read by others than its owner: chmod 600")
                pem = file.read(MAX_PEM)
        except OSError as error:
            raise Misconfigured(f"{path} cannot be read: {error.strerror}") from None
        signs_from = datetime.strptime(name[:16], _TIME).replace(tzinfo=timezone.utc)
        return StoredKey(SigningKey.from_pem(pem), signs_from, path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Misconfigured(f"{self._path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _new_key() -> tuple[SigningKey, bytes]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=MIN_BITS)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SigningKey.from_pem(pem), pem


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)
