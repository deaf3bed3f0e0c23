"""What a task instance holds: credentials in memory, one exchange for each policy, never past a lease."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone

from cortex_provider import compat
from cortex_provider.client import Ask, BrokerClient, Bundle, Credential
from cortex_provider.errors import ApprovalPending, GrantRefused, Refused, Unavailable
from cortex_provider.identity import TokenSource, token_source
from cortex_provider.run import Run, reason_from_params
from cortex_provider.settings import Settings

log = logging.getLogger(__name__)

#: A credential is renewed when less than this part of its life is left. A little less than Cortex's own third: above
#: that, Cortex answers with the credential that is held already.
RENEW_BELOW = 0.3
#: A held credential that Cortex cannot renew for the moment is given out while it lives this long, in seconds.
USABLE_SECONDS = 10.0
#: How long Cortex may be away before a lookup fails, in seconds.
PATIENCE = 120.0
#: The longest pause between two tries that Cortex did not ask for, in seconds.
PAUSE_MAX = 10.0
#: What keeps the tasks that failed together from coming back together.
CHANCE = random.SystemRandom()
#: How many policies one process holds at once; a task needs a handful.
SLOTS_MAX = 256


@dataclass
class _Held:
    credential: Credential
    obtained_at: datetime
    masked: bool = False

    def hand_out(self) -> Credential:
        """The credential, its secrets registered with Airflow's masker.

        Not earlier: the masker keeps every secret for as long as the task lives and grows slower with each, and most
        tasks use one target of several.
        """
        if not self.masked:
            compat.mask(*(secret for name, secret in self.credential.secrets.items() if name != "access_key_id"))
            self.masked = True
        return self.credential

    def is_due(self) -> bool:
        """Whether it is time to renew it."""
        life = (self.credential.expires_at - self.obtained_at).total_seconds()
        return self.credential.remaining() < renew_at(life)


@dataclass
class _Slot:
    """One policy of one try of one task instance."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    held: dict[str, _Held] = field(default_factory=dict)
    failed: dict[str, Refused | Unavailable] = field(default_factory=dict)

    def name(self, target: str | None) -> str | None:
        """The target that is meant: the named one, or the policy's only one."""
        known = [*self.held, *self.failed]
        return target if target is not None or len(known) != 1 else known[0]

    def needs_exchange(self, target: str | None) -> bool:
        """Whether Cortex has to be asked: nothing is known yet, the credential is due, or Cortex was away for it."""
        if not self.held:
            return True
        name = self.name(target)
        if name in self.held:
            return self.held[name].is_due()
        return isinstance(self.failed.get(name or ""), Unavailable)

    def credential(self, policy: str, target: str | None) -> Credential:
        """What is held for the target; raises `Refused` or `Unavailable` with why there is nothing."""
        name = self.name(target)
        if name in self.held:
            return self.held[name].hand_out()
        if name in self.failed:
            raise self.failed[name]
        has = ", ".join(sorted({*self.held, *self.failed}))
        if name is None:
            raise Refused("invalid_target", f"policy {policy} has the targets {has}: name one of them")
        raise Refused("invalid_target", f"policy {policy} has no target {name}; it has {has}")


def renew_at(life: float) -> float:
    """How many seconds before its end a credential that lives `life` seconds is renewed."""
    return life * RENEW_BELOW


class Leases:
    """Credentials of the running tasks of this process.

    Threads may share it. What was inherited over a fork is never served: the process id is part of every key.
    """

    def __init__(self, settings: Settings, client: BrokerClient, tokens: TokenSource) -> None:
        self._settings = settings
        self._client = client
        self._tokens = tokens
        self._slots: dict[tuple[int, str, Ask], _Slot] = {}
        # Cortex gives a credential that has most of its life left again, and it is one issuance all the same.
        self._logged: deque[str] = deque(maxlen=SLOTS_MAX)
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def credential(self, run: Run, ask: Ask, target: str | None) -> Credential:
        """The credential of one target, or of the policy's only one.

        Raises `CortexError` with the reason. What is held and good for a while is given out at once; otherwise all
        of the policy's targets are asked for in one exchange, while other threads that want the same wait for it.
        """
        slot = self._slot(run, ask)
        with self._turn(slot):
            if slot.needs_exchange(target):
                self._renew(slot, run, ask, target)
            return slot.credential(ask.policy, target)

    def bundle(self, run: Run, ask: Ask) -> dict[str, Credential]:
        """The credentials of all of the policy's targets; raises `CortexError` where one of them failed."""
        slot = self._slot(run, ask)
        with self._turn(slot):
            if slot.failed or not slot.held or any(held.is_due() for held in slot.held.values()):
                self._renew(slot, run, ask, None)
            for target, error in slot.failed.items():
                raise Refused("invalid_target", f"{target}: {error}")
            return {target: held.hand_out() for target, held in slot.held.items()}

    def exchange(self, run: Run, ask: Ask) -> Bundle:
        """One exchange with a fresh ID token, logged and not held. Does not wait for approval."""
        bundle = self._client.credentials(self._tokens.token(run), ask, self._tokens.claim(run))
        for target, entry in sorted(bundle.credentials.items()):
            if isinstance(entry, Credential):
                if entry.issuance_id in self._logged:
                    continue
                self._logged.append(entry.issuance_id)
                ends = entry.expires_at.isoformat(timespec="seconds")
                log.info(
                    "Cortex: policy %s, target %s: issued until %s, issuance %s",
                    entry.policy, target, ends, entry.issuance_id,
                )  # fmt: skip
            else:
                log.warning("Cortex: policy %s, target %s: %s", bundle.policy, target, entry)
        return bundle

    def _slot(self, run: Run, ask: Ask) -> _Slot:
        with self._lock:
            # The reason is not part of the key: it changes nothing of what is issued.
            key = (os.getpid(), run.key, Ask(ask.policy, None, ask.ttl_seconds))
            if key not in self._slots and len(self._slots) >= SLOTS_MAX:
                self._slots.pop(next(iter(self._slots)))
            return self._slots.setdefault(key, _Slot())

    @contextmanager
    def _turn(self, slot: _Slot) -> Iterator[None]:
        # With a deadline: a thread that blocks an event loop here may be what the one inside waits for.
        if not slot.lock.acquire(timeout=PATIENCE + self._settings.timeout + self._settings.wait_for_approval):
            raise Unavailable("another thread of this task is asking Cortex for the same policy and gets no answer")
        try:
            yield
        finally:
            slot.lock.release()

    def _renew(self, slot: _Slot, run: Run, ask: Ask, target: str | None) -> None:
        """Fills the slot anew. If Cortex is away, a credential that still lives goes on; if it says no, none does."""
        held = slot.held.get(slot.name(target) or "")
        usable = held is not None and held.credential.remaining() > USABLE_SECONDS
        try:
            # Who holds a credential that lives goes on with it rather than wait.
            bundle = self.exchange(run, ask) if usable else self._exchange_once_approved(run, ask)
        except Unavailable as error:
            if usable:
                log.warning("Cortex: policy %s: not renewed for now: %s", ask.policy, error)
                return
            slot.held.clear()
            raise
        except BaseException:
            slot.held.clear()
            raise
        now = datetime.now(timezone.utc)
        slot.held = {t: _Held(c, now) for t, c in bundle.credentials.items() if isinstance(c, Credential)}
        slot.failed = {t: e for t, e in bundle.credentials.items() if not isinstance(e, Credential)}

    def exchange_patiently(self, run: Run, ask: Ask) -> Bundle:
        """An exchange, tried again for a while where Cortex, or what it needs, is away."""
        until = time.monotonic() + PATIENCE
        pause = 0.5
        while True:
            # Each try takes a fresh ID token: the one of a try that failed may be spent.
            try:
                return self.exchange(run, ask)
            except Unavailable as error:
                pause = min(pause * 2, PAUSE_MAX)
                # Cortex says to each another time; where it says none, chance keeps tasks from coming back together.
                wait = max(error.retry_after or 0.0, CHANCE.uniform(pause / 2, pause))
                if time.monotonic() + wait > until:
                    raise
                log.info("Cortex: asking again in %.1f s: %s", wait, error)
                time.sleep(wait)

    def _exchange_once_approved(self, run: Run, ask: Ask) -> Bundle:
        """An exchange, after people have decided where they have to; waits as long as is configured."""
        until = time.monotonic() + self._settings.wait_for_approval
        while True:
            try:
                return self.exchange_patiently(run, ask)
            except ApprovalPending as pending:
                self._wait_for_approval(pending, until)

    def _wait_for_approval(self, pending: ApprovalPending, until: float) -> None:
        """Waits until people have decided; raises where they said no, or where it takes too long."""
        log.info("Cortex: %s", pending)
        while (left := until - time.monotonic()) > 0 and pending.grant_handle:
            try:
                status = self._client.grant_status(pending.grant_id, pending.grant_handle, wait=int(min(left, 20)))
            except Unavailable as error:
                log.info("Cortex: asking again: %s", error)
                time.sleep(min(2.0, left))
                continue
            if status.status == "approved":
                log.info("Cortex: %s", status.sentence())
                return
            if status.decided:
                raise GrantRefused(status.sentence())
            # Cortex held the question; this keeps a proxy that answers at once from being asked in a loop.
            time.sleep(min(1.0, left))
        waited = self._settings.wait_for_approval
        raise ApprovalPending(
            f"{pending}. The task waited {waited} s for it: approve it and retry, or give it a CortexGrantOperator",
            pending.grant_id, pending.grant_handle, pending.interval,
        )  # fmt: skip

    def _forget(self) -> None:
        # The locks may have been held by threads that this child does not have.
        self._slots = {}
        self._lock = threading.Lock()


_shared: dict[Settings, Leases] = {}
_shared_lock = threading.Lock()


def leases_for(settings: Settings) -> Leases:
    """What this process holds under `settings`: the backend and the hook share it."""
    with _shared_lock:
        if settings not in _shared:
            client = BrokerClient(settings.url, settings.timeout, settings.ca_file)
            _shared[settings] = Leases(settings, client, token_source(settings))
        return _shared[settings]


def ask_for(settings: Settings, policy: str, reason: str | None = None, ttl_seconds: int | None = None) -> Ask:
    """What to ask for, with the reason that the run's params give, or else `reason`."""
    return Ask(policy, reason_from_params(settings.reason_param) or reason, ttl_seconds)
