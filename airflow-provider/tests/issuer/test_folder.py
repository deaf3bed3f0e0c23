"""Keys that the issuer makes itself: first start, rotation, and who may see them."""

from __future__ import annotations

import multiprocessing
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cortex_provider.issuer.errors import Misconfigured
from cortex_provider.issuer.folder import LEEWAY, KeyFolder
from cortex_provider.issuer.settings import MAX_LIFETIME

OVERLAP = timedelta(hours=1)
DRAINED = timedelta(seconds=MAX_LIFETIME + LEEWAY)


class Clock:
    """The time, as a test sets it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> KeyFolder:
    return KeyFolder(tmp_path / "cortex" / "keys", clock)


def kids(folder: KeyFolder) -> list[str]:
    return [key.kid for key in folder.keys().published]


def test_the_first_key_is_made_for_its_owner_only(folder: KeyFolder, tmp_path: Path) -> None:
    assert folder.stored() == []
    keys = folder.keys()
    assert keys.published == (keys.signing,)
    assert kids(folder) == [keys.signing.kid]
    (stored,) = folder.stored()
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.path.parent.stat().st_mode) == 0o700
    assert stored.path.name == f"20260102T030405Z-{keys.signing.kid}.pem"


def test_workers_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as workers:
        found = workers.map(_first_key, [str(tmp_path / "keys")] * 8, chunksize=1)
    assert len(set(found)) == 1
    assert len(list((tmp_path / "keys").glob("*.pem"))) == 1


def _first_key(path: str) -> str:
    return KeyFolder(Path(path)).keys().signing.kid


def test_a_new_key_is_published_before_it_signs(folder: KeyFolder, clock: Clock) -> None:
    old = folder.keys().signing.kid
    new = folder.rotate(OVERLAP).key.kid
    assert kids(folder) == [old, new]
    assert folder.keys().signing.kid == old
    clock.now += OVERLAP - timedelta(seconds=1)
    assert folder.keys().signing.kid == old
    clock.now += timedelta(seconds=1)
    assert folder.keys().signing.kid == new
    assert kids(folder) == [old, new]


def test_only_one_key_waits_at_a_time(folder: KeyFolder) -> None:
    folder.keys()
    waiting = folder.rotate(OVERLAP).key.kid
    with pytest.raises(Misconfigured, match=f"{waiting} is waiting"):
        folder.rotate(OVERLAP)


def test_a_key_is_retired_when_its_last_token_has_expired(folder: KeyFolder, clock: Clock) -> None:
    old = folder.keys().signing.kid
    new = folder.rotate(OVERLAP).key.kid
    with pytest.raises(Misconfigured, match="signs now"):
        folder.retire(old)
    clock.now += OVERLAP + DRAINED - timedelta(seconds=1)
    with pytest.raises(Misconfigured, match="may live until"):
        folder.retire(old)
    clock.now += timedelta(seconds=1)
    assert folder.retire(old).key.kid == old
    assert kids(folder) == [new]


def test_a_key_that_leaked_goes_at_once(folder: KeyFolder) -> None:
    leaked = folder.keys().signing.kid
    new = folder.rotate(timedelta(0)).key.kid
    # Made in the same second, so the order of their names decides; the one that signs stays.
    signing = folder.keys().signing.kid
    gone = ({leaked, new} - {signing}).pop()
    with pytest.raises(Misconfigured, match="signs now"):
        folder.retire(signing, force=True)
    folder.retire(gone, force=True)
    assert kids(folder) == [signing]


def test_a_key_that_never_signed_can_be_taken_back(folder: KeyFolder) -> None:
    old = folder.keys().signing.kid
    folder.retire(folder.rotate(OVERLAP).key.kid)
    assert kids(folder) == [old]
    with pytest.raises(Misconfigured, match="has no key"):
        folder.retire("unknown")


def test_a_keys_name_is_never_taken_for_an_option(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["-" + "x" * 42, "-" + "y" * 42, "z" * 43])
    monkeypatch.setattr("cortex_provider.issuer.keys._thumbprint", lambda _: next(names))
    assert folder.rotate(OVERLAP).key.kid == "z" * 43


def test_a_key_that_others_can_read_is_refused(folder: KeyFolder) -> None:
    folder.keys()
    (stored,) = folder.stored()
    stored.path.chmod(0o640)
    with pytest.raises(Misconfigured, match="chmod 600"):
        folder.keys()


def test_what_is_not_a_key_by_its_name_is_left_alone(folder: KeyFolder) -> None:
    kid = folder.keys().signing.kid
    place = folder.stored()[0].path.parent
    (place / "notes.pem").write_text("not a key")
    (place / f"20260102T030406Z-{'x' * 43}.123.new").write_text("half a k")
    assert kids(folder) == [kid]


def test_a_key_that_is_broken_stops_the_issuer(folder: KeyFolder) -> None:
    folder.keys()
    folder.stored()[0].path.write_text("half a k")
    with pytest.raises(Misconfigured, match="not an unencrypted PEM"):
        folder.keys()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="file/keys"):
        KeyFolder(tmp_path / "file" / "keys").keys()
