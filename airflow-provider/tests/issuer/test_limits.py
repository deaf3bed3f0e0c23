"""How often a task instance may ask."""

from __future__ import annotations

import uuid

import pytest

from cortex_provider.issuer import limits
from cortex_provider.issuer.errors import Refused
from cortex_provider.issuer.limits import MAX_PER_WINDOW, WINDOW, MintLimit


def test_a_window_that_is_over_begins_anew() -> None:
    now = 0.0
    limit = MintLimit(clock=lambda: now)
    task = uuid.uuid4()
    for _ in range(MAX_PER_WINDOW):
        limit.count(task)
    for _ in range(3):
        with pytest.raises(Refused, match="in a minute"):
            limit.count(task)
    limit.count(uuid.uuid4())
    now = WINDOW
    limit.count(task)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TRACKED", 3)
    limit = MintLimit()
    tasks = [uuid.uuid4() for _ in range(10)]
    for task in tasks:
        limit.count(task)
    assert list(limit._windows) == tasks[-3:]
