"""Fuzzes an API against its own OpenAPI document with schemathesis, and sums up what it found.

The bearer token is read from standard input. What schemathesis prints goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import Unexpected, report

# A body over the limit is refused by its size alone, whatever else is wrong with it.
CONFIG = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]
"""


def command(options: argparse.Namespace, token: str, report_path: Path) -> list[str]:
    arguments = [
        str(Path(sys.executable).parent / "schemathesis"),
        *("run", options.url, "--no-color", "--report", "json", "--report-json-path", str(report_path)),
        *("--max-examples", str(options.max_examples), "--seed", str(options.seed), "--workers", "2"),
        *("--request-timeout", "10", "--max-failures", "50"),
    ]
    if token:
        arguments += ["--header", f"Authorization: Bearer {token}"]
    for check in options.exclude_check:
        arguments += ["--exclude-checks", check]
    for path in options.exclude_path:
        arguments += ["--exclude-path", path]
    return arguments


def act(options: argparse.Namespace, token: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        report_path = Path(folder) / "report.json"
        (Path(folder) / "schemathesis.toml").write_text(CONFIG)
        ended = subprocess.run(
            command(options, token, report_path), stdout=sys.stderr, cwd=folder, timeout=options.deadline, check=False
        )
        found = json.loads(report_path.read_text())
    if ended.returncode != 0:
        raise Unexpected(json.dumps({name: found[name] for name in ("failures", "errors", "operations")}))
    return {"operations": found["operations"], "test_cases": found["test_cases"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="where the OpenAPI document is")
    parser.add_argument("--max-examples", type=int, default=30, help="for each operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=300, help="seconds")
    parser.add_argument("--exclude-check", action="append", default=[])
    parser.add_argument("--exclude-path", action="append", default=[])
    options = parser.parse_args()
    token = sys.stdin.read().strip()
    report(lambda: act(options, token))


if __name__ == "__main__":
    main()
