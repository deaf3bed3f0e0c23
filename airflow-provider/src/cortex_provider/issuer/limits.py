"""How often a task instance may ask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

from cortex_provider.issuer.errors import Refused

MAX_PER_WINDOW = 120
"""ID tokens for one task instance in one window, from one API server process. A task asks once per policy and lease."""

WINDOW = 60.0
"""Seconds."""

MAX_TRACKED = 20_000
"""Task instances that are counted at once; beyond that the one that asked longest ago is forgotten."""


class MintLimit:
    """Counts the ID tokens of each task instance. Not thread-safe: it belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[UUID, tuple[float, int]] = OrderedDict()

    def count(self, ti_id: UUID) -> None:
        """Counts one more.

        :raises Refused: when it is one too many.
        """
        now = self._clock()
        start, count = self._windows.pop(ti_id, (now, 0))
        if now - start >= WINDOW:
            start, count = now, 0
        self._windows[ti_id] = (start, min(count + 1, MAX_PER_WINDOW + 1))
        while len(self._windows) > MAX_TRACKED:
            self._windows.popitem(last=False)
        if count >= MAX_PER_WINDOW:
            raise Refused(f"the task instance {ti_id} asked for more than {MAX_PER_WINDOW} ID tokens in a minute")
