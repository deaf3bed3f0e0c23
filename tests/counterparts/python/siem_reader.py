"""Reads events from standard input, one in a line, with a parser of their format, and prints what it made of them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def cef(line: str) -> dict[str, Any]:
    import pycef

    event = pycef.parse(line)
    if event is None:
        raise ValueError(f"no CEF: {line}")
    return dict(event)


def ocsf(line: str) -> dict[str, Any]:
    from py_ocsf_models.events.base_event import BaseEvent

    # What all classes have in common is checked.
    return dict(BaseEvent.model_validate_json(line).model_dump(mode="json"))


def cloudevents(line: str) -> dict[str, Any]:
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    event = JSONFormat().read(CloudEvent, line)
    return {**{k: str(v) for k, v in event.get_attributes().items()}, "data": event.get_data()}


READERS = {"cef": cef, "ocsf": ocsf, "cloudevents": cloudevents}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", required=True, choices=sorted(READERS))
    read = READERS[parser.parse_args().format]
    try:
        events = [read(line) for line in sys.stdin.read().splitlines()]
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return 1
    print(json.dumps({"events": events}, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
