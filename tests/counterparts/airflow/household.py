"""Processes that never outlive whoever asked for them.

Airflow's processes start others, in sessions of their own. So a guardian adopts whatever loses its parent, and kills
all of it when the standard input closes or the process that started the guardian is gone, `kill -9` included. When the
guardian itself is killed so, its own children die with it. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


class Household:
    """The processes under one guardian, and a folder that is deleted with them."""

    def __init__(self, folder: Path, ends: int) -> None:
        self.folder = folder
        self._ends = ends
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Starts a process; what it prints goes to a file of its own in the folder."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )

    def run(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Runs a process to its end.

        :raises RuntimeError: when it fails; with the end of what it printed.
        """
        self.start(name, command, environment)
        while self._processes[name].poll() is None:
            self.rest(0.1)
        if self._processes.pop(name).returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{self.last_words(name)}")

    def rest(self, seconds: float) -> None:
        """Waits a moment.

        :raises SystemExit: when it is time to end.
        """
        readable, _, _ = select.select([self._ends, sys.stdin], [], [], seconds)
        for source in readable:
            if not os.read(source if isinstance(source, int) else source.fileno(), 4096):
                raise SystemExit(0)

    def check(self) -> None:
        """Sees that all that were started still run.

        :raises RuntimeError: when one has ended; with the end of what it printed.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with status {process.returncode}:\n{self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The end of what a process printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-8000:]


def guarded(keep: Callable[[Household], None]) -> int:
    """Runs `keep` in a guardian until it is time to end; answers its exit status."""
    ends, held = os.pipe()
    guardian = os.fork()
    if guardian:
        # Closed by our end, however that comes about.
        os.close(ends)
        _, status = os.waitpid(guardian, 0)
        return os.waitstatus_to_exitcode(status)
    os.close(held)
    os.setsid()
    status = 1
    try:
        with _household(ends) as household:
            keep(household)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except Exception as error:
        print(f"airflow: {error}", file=sys.stderr, flush=True)
    os._exit(status)


@contextmanager
def _household(ends: int) -> Iterator[Household]:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="cortex-airflow-", ignore_cleanup_errors=True) as folder:
        try:
            yield Household(Path(folder), ends)
        finally:
            _kill_descendants()


def _kill_descendants() -> None:
    """Kills children until there are none: those of a killed child become ours."""
    while children := list(_children()):
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _children() -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The second field is a name in brackets, which may hold anything.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                yield int(stat.parent.name)


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
