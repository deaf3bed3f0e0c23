"""What a connection may be renewed with: a random key leads to one target of one policy of one run."""

from __future__ import annotations

import os
import secrets
import threading
from dataclasses import dataclass, field
from hashlib import sha256

from cortex_provider import compat
from cortex_provider.client import Ask, Credential
from cortex_provider.leases import Leases
from cortex_provider.run import Run

#: How many renewals one process remembers; a task needs a handful.
RENEWALS_MAX = 1024


@dataclass(frozen=True)
class Renewal:
    """Gives the credential of one target again and again, while the task runs.

    It holds the run itself: threads that renew do not see which task they work for.
    """

    leases: Leases = field(repr=False)
    run: Run
    ask: Ask
    target: str
    #: 256 random bits, known to this process and what runs in it.
    key: str = field(repr=False)

    def credential(self) -> Credential:
        """The credential that is held, or a fresh one when that is about to end; raises `CortexError`."""
        return self.leases.credential(self.run, self.ask, self.target)


_lock = threading.Lock()
_by_digest: dict[bytes, Renewal] = {}
_by_ask: dict[tuple[int, int, str, Ask, str], Renewal] = {}


def renewal_for(leases: Leases, run: Run, ask: Ask, target: str) -> Renewal:
    """The renewal of this target, the same for every lookup of the same task instance."""
    name = (os.getpid(), id(leases), run.key, Ask(ask.policy, None, ask.ttl_seconds), target)
    with _lock:
        renewal = _by_ask.get(name)
        if renewal is None:
            if len(_by_ask) >= RENEWALS_MAX:
                oldest = _by_ask.pop(next(iter(_by_ask)))
                _by_digest.pop(_digest(oldest.key), None)
            renewal = Renewal(leases, run, ask, target, f"cortex_renewal_{secrets.token_urlsafe(32)}")
            _by_ask[name] = renewal
            _by_digest[_digest(renewal.key)] = renewal
    compat.mask(renewal.key)
    return renewal


def find(key: str) -> Renewal | None:
    """The renewal that `key` leads to. Looked up by digest, so that time tells nothing about a key."""
    with _lock:
        return _by_digest.get(_digest(key))


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="replace")).digest()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
