"""Prints the folder for cargo's intermediate artefacts: what CARGO_BUILD_BUILD_DIR is to be for this checkout.

It lies in the user's cache, so that a fresh clone finds its dependencies built. Two checkouts must not share one:
cargo names the artefacts of workspace members by their path within the workspace and tells fresh from stale by time,
so one checkout would run the other's code. So the first checkout owns `build`, every other one gets a folder of its
own, started as a copy of the dependencies in `build`; and who takes over a deleted checkout's folder forgets the
members in it. Cargo keeps each state of a member that it ever built, so what is a day old goes: cargo builds it again
if it is still wanted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cortex"
CHECKOUT = Path(__file__).resolve().parent.parent
MEMBERS = "cortex*"
OWNER = ".checkout"
KEEP_S = 24 * 3600


def say(text: str) -> None:
    print(f"build: {text}", file=sys.stderr, flush=True)


def owner(build: Path) -> Path | None:
    try:
        return Path((build / OWNER).read_text().strip())
    except FileNotFoundError:
        return None


def of_a_member(artefact: Path) -> bool:
    """Whether it is a workspace member's: by its name, or as an executable, which only members have."""
    return artefact.name.removeprefix("lib").startswith("cortex") or not artefact.suffix


def prune(build: Path) -> Path:
    """Drops what members left behind more than a day ago."""
    oldest = time.time() - KEEP_S
    left = [artefact for artefact in build.glob("*/deps/*") if of_a_member(artefact)]
    for path in [*left, *build.glob("*/examples/*"), *build.glob("*/incremental/*")]:
        try:
            if path.stat().st_mtime >= oldest:
                continue
        except FileNotFoundError:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return build


def without_members(folder: str, names: list[str]) -> set[str]:
    """For `copytree`: what is not copied. Only in `deps` is what has no suffix an executable."""
    in_deps = Path(folder).name == "deps"
    return {
        name
        for name in names
        if name.startswith("cortex") or name.startswith("libcortex") or (in_deps and "." not in name)
    }


def claim(build: Path) -> Path:
    """Makes this checkout the owner; what another one built of the members is forgotten."""
    if owner(build) != CHECKOUT:
        for fingerprint in build.glob(f"*/.fingerprint/{MEMBERS}"):
            shutil.rmtree(fingerprint, ignore_errors=True)
    build.mkdir(parents=True, exist_ok=True)
    (build / OWNER).write_text(f"{CHECKOUT}\n")
    return build


def copy_dependencies(source: Path, build: Path) -> None:
    """Copies what cargo built of the dependencies, for each profile.

    A build may be going on there. Cargo writes a fingerprint after its artefact, so fingerprints are copied first:
    what has one then is whole, and what has none is built again. The artefacts themselves are linked, which takes no
    room: the compiler puts a new file in an old one's place and never writes into it.
    """
    for profile in (fingerprints.parent for fingerprints in source.glob("*/.fingerprint")):
        for part in (".fingerprint", "build", "deps"):
            try:
                shutil.copytree(
                    profile / part,
                    build / profile.name / part,
                    symlinks=True,
                    ignore=without_members,
                    copy_function=os.link if part == "deps" else shutil.copy2,
                )
            except shutil.Error as error:
                say(f"{len(error.args[0])} files vanished while they were copied; they are built again")


def own(shared: Path) -> Path:
    build = CACHE / f"build-{hashlib.sha256(bytes(CHECKOUT)).hexdigest()[:16]}"
    if build.is_dir():
        return build
    say(f"another checkout, {owner(shared)}, owns {shared}; linking its dependencies into {build}")
    for old in CACHE.glob("build-*"):
        checkout = owner(old)
        if checkout and not checkout.is_dir():
            shutil.rmtree(old, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=CACHE))
    try:
        copy_dependencies(shared, scratch)
        claim(scratch).rename(build)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return build


def main() -> None:
    chosen = os.environ.get("CARGO_BUILD_BUILD_DIR")
    if chosen:
        print(chosen)
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shared = CACHE / "build"
        held_by = owner(shared)
        free = held_by is None or held_by == CHECKOUT or not held_by.is_dir()
        print(prune(claim(shared) if free else own(shared)))


if __name__ == "__main__":
    main()
