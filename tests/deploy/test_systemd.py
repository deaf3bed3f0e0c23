"""The unit is one that systemd takes, and leaves the service little."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from metrics import ROOT

UNIT = ROOT / "deploy" / "systemd" / "cortex.service"
# What `systemd-analyze security` gives a unit without any of this is 9.6.
EXPOSURE = 2.0


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The unit with a program that there is on every machine."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/cortex serve", "/bin/true serve"))
    return copy


def analyze(*arguments: str | Path) -> str:
    program = shutil.which("systemd-analyze")
    if not program:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # It warns of what it does not know, and succeeds.
    assert UNIT.name not in done.stderr, done.stderr
    return done.stdout


def test_systemd_takes_it(here: Path) -> None:
    analyze("verify", here)


def test_a_directive_that_does_not_exist_is_found(here: Path) -> None:
    here.write_text(here.read_text().replace("PrivateTmp=", "PrivatTmp="))
    with pytest.raises(AssertionError, match="PrivatTmp"):
        analyze("verify", here)


def test_little_is_exposed(here: Path) -> None:
    said = analyze("security", "--offline=true", "--no-pager", here)
    (exposure,) = re.findall(r"Overall exposure level for cortex.service: ([\d.]+)", said)
    assert float(exposure) <= EXPOSURE, said


def test_it_stops_later_than_the_drain_and_takes_more_connections_than_the_server() -> None:
    unit = UNIT.read_text()
    config = (ROOT / "config" / "cortex.toml").read_text()

    def default(option: str) -> int:
        return int(re.findall(rf"^# {option} = (\d+)$", config, re.M)[0])

    def directive(name: str) -> int:
        return int(re.findall(rf"^{name}=(\d+)$", unit, re.M)[0])

    assert directive("TimeoutStopSec") >= default("drain_timeout_s") + 10
    assert directive("LimitNOFILE") >= 2 * default("max_connections")
    assert directive("LimitCORE") == 0
