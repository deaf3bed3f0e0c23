"""The bill of materials is CycloneDX, names what the lock file pins, and comes out the same again."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from metrics import ROOT


def made() -> str:
    command = [sys.executable, str(ROOT / ".ci" / "sbom.py")]
    done: subprocess.CompletedProcess[str] = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def bill() -> str:
    return made()


def components(bill: str) -> dict[str, Any]:
    return {entry["purl"]: entry for entry in json.loads(bill)["components"]}


def test_it_is_valid(bill: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None


def test_a_bill_that_is_not_valid_is_found(bill: str) -> None:
    document = json.loads(bill)
    first = next(entry for entry in document["components"] if "hashes" in entry)
    first["hashes"][0]["alg"] = "SHA-257"
    wrong = json.dumps({**document, "components": [first], "dependencies": []})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(wrong) is not None


def test_everything_in_it_is_pinned_with_its_digest_and_has_a_licence(bill: str) -> None:
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    pinned = {f"pkg:cargo/{entry['name']}@{entry['version']}": entry.get("checksum") for entry in lock}
    found = components(bill)
    assert len(found) > 200
    for name, entry in found.items():
        digests = [digest["content"] for digest in entry.get("hashes", [])]
        assert digests == ([pinned[name]] if pinned[name] else []), name
        assert entry["licenses"], name
        assert digests or name.startswith("pkg:cargo/cortex-"), name


def test_what_is_linked_is_in_it_and_what_only_tests_use_is_not(bill: str) -> None:
    names = {entry["name"] for entry in components(bill).values()}
    assert {"aws-lc-rs", "rustls", "cedar-policy", "sqlx", "cortex-server"} <= names
    assert not {"proptest", "insta", "stateright"} & names


def test_each_reference_is_to_something_in_it(bill: str) -> None:
    document = json.loads(bill)
    known = {*components(bill), document["metadata"]["component"]["purl"]}
    assert {entry["ref"] for entry in document["dependencies"]} == known
    assert all(ref in known for entry in document["dependencies"] for ref in entry["dependsOn"])


def test_the_same_source_makes_the_same_bill(bill: str) -> None:
    assert made() == bill
