"""Prints a fresh token of a run, as the development issuer signs it: what `--token-command` is for."""

from __future__ import annotations

import argparse
import json
import urllib.request

TIMEOUT = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issuer", required=True, help="the development issuer")
    parser.add_argument("--run", required=True, help="the run, as JSON")
    options = parser.parse_args()
    request = urllib.request.Request(  # noqa: S310, it is on loopback
        f"{options.issuer}/token",
        data=json.dumps({"run": json.loads(options.run)}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        print(json.load(answer)["token"])


if __name__ == "__main__":
    main()
