"""`python -m cortex_provider.issuer keys ...`"""

from __future__ import annotations

from pathlib import Path

import pytest

from cortex_provider.issuer.__main__ import main
from cortex_provider.issuer.folder import KeyFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFolder:
    monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_KEYS_FOLDER", str(tmp_path / "keys"))
    return KeyFolder(tmp_path / "keys")


def test_a_rotation_step_by_step(folder: KeyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list"]) == 0
    assert "no keys yet" in capsys.readouterr().out
    old = folder.keys().signing.kid
    assert main(["keys", "rotate", "--overlap", "600"]) == 0
    new = capsys.readouterr().out.split()[0]
    assert main(["keys", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [(line.split()[0], line.split("  ")[-1]) for line in lines] == [(old, "signs"), (new, "waits to sign")]
    assert main(["keys", "retire", old]) == 1
    assert "signs now" in capsys.readouterr().err
    assert main(["keys", "retire", new]) == 0
    assert [one.key.kid for one in folder.stored()] == [old]


def test_keys_from_elsewhere_are_rotated_there(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__CORTEX__ISSUER_KEY_FILE", "/run/secrets/key.pem")
    assert main(["keys", "rotate"]) == 1
    assert "rotate the keys where those come from" in capsys.readouterr().err
    assert folder.stored() == []


@pytest.mark.parametrize("overlap", ["-1", "soon", "2592001"])
def test_an_overlap_has_bounds(folder: KeyFolder, overlap: str) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "rotate", "--overlap", overlap])
    assert folder.stored() == []
