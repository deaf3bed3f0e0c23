"""How every script here answers: one JSON object on standard output, and an exit code that says how it went."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any


class Unexpected(Exception):
    """Something went through that must be refused, or came back different."""


def report(act: Callable[[], dict[str, Any]]) -> None:
    """Prints what `act` answers and exits with 0, or prints its error by type and message and exits with 1."""
    try:
        answer, code = act(), 0
    except Exception as error:  # the caller reads which one it was
        traceback.print_exc()
        answer, code = {"error": type(error).__name__, "message": str(error)}, 1
    print(json.dumps(answer, default=str))
    sys.exit(code)
