"""Prints the bill of materials of the binary `cortex` as CycloneDX JSON: what is linked into it or builds it.

It is made of `cargo metadata` and Cargo.lock alone, and the same source makes the same text: the time is that of
SOURCE_DATE_EPOCH, or of the newest commit.

    python3 .ci/sbom.py [--target x86_64-unknown-linux-gnu]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "cortex-cli"


def output(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def made_at() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or output(["git", "log", "-1", "--format=%ct"])
    return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def purl(package: dict[str, Any]) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def reachable(nodes: dict[str, Any], root: str) -> dict[str, list[str]]:
    """What each package that counts depends on, tests left out."""
    graph: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        package = waiting.pop()
        if package in graph:
            continue
        used = [dep for dep in nodes[package]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
        graph[package] = sorted({dep["pkg"] for dep in used})
        waiting += graph[package]
    return graph


def component(package: dict[str, Any], checksums: dict[tuple[str, str], str]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package["license"]:
        # An older way to write `OR`.
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum := checksums.get((package["name"], package["version"])):
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def bill(target: str) -> dict[str, Any]:
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", target]
    metadata = json.loads(output(command))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(id_ for id_, package in packages.items() if package["name"] == PACKAGE)
    graph = reachable(nodes, root)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(entry["name"], entry["version"]): entry["checksum"] for entry in lock if "checksum" in entry}
    components = [component(packages[package], checksums) for package in graph if package != root]
    application = {**component(packages[root], checksums), "type": "application"}
    depends = [
        {"ref": purl(packages[package]), "dependsOn": sorted(purl(packages[dep]) for dep in used)}
        for package, used in graph.items()
    ]
    parts = {
        "components": sorted(components, key=lambda entry: str(entry["bom-ref"])),
        "dependencies": sorted(depends, key=lambda entry: str(entry["ref"])),
    }
    name = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(parts, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{name}",
        "version": 1,
        "metadata": {
            "timestamp": made_at(),
            "component": application,
            "properties": [{"name": "cortex:target", "value": target}],
        },
        **parts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="x86_64-unknown-linux-gnu", help="what the binary is for")
    print(json.dumps(bill(parser.parse_args().target), indent=1))


if __name__ == "__main__":
    main()
