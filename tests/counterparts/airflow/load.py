"""Measures what Cortex is asked when many tasks start at once.

    load.py COMMAND ARG...      the command that starts `cortex dev`; --listen and --policies are added to it

Simulated tasks, each in a process and with a run context of its own, look up the four connections of one policy several
times, from several threads, through the secrets backend as Airflow calls it. Their identity is the development
issuer's; the rest of their way to Cortex is that of any task. Exchanges are counted on the way out and in what Cortex
says of itself. The exit status is 1 when a task needed more or less than one exchange, when a lookup failed, or when
the two counts differ; never for slowness.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode
from urllib.request import Request, urlopen

TASKS = 300
TARGETS = ("aws", "bigquery", "snowflake", "api")
#: Threads that look up connections in each task, and how often each of them looks up each connection.
THREADS, ROUNDS = 4, 3
#: How long Cortex may take to start, and all tasks to end, in seconds.
START_WAIT, END_WAIT = 300, 180
POLICY = """
name: load
description: Many tasks that start at once
who: {airflow: prod, dags: ["load_*"]}
what:
  aws:
    role: arn:aws:iam::123456789012:role/finance-publish
    allow: [{actions: [s3:PutObject], resources: ["arn:aws:s3:::finance-mart/{dag_id}/{run_id}/*"]}]
  bigquery: {project: acme-finance, grant: finance-publish}
  snowflake: {account: acme-prod, user: FINANCE_SVC, role: FINANCE_PUBLISH}
  api: {audience: "https://ledger.acme.example", scopes: ["postings:read"]}
when: {max_ttl: 30m}
"""


@dataclass
class Seen:
    """What one task saw, or all of them."""

    #: Requests for credentials, by the task that sent them.
    exchanges: Counter[str] = field(default_factory=Counter)
    #: How long each task's first lookup took, and every later one, in seconds.
    first: list[float] = field(default_factory=list)
    repeated: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        """Takes in what another task saw."""
        self.exchanges.update(other.exchanges)
        self.first += other.first
        self.repeated += other.repeated
        self.failures += other.failures


@dataclass(frozen=True)
class Dev:
    """A running `cortex dev`."""

    url: str
    issuer_url: str

    def ask(self, path: str, token: str | None = None, body: object = None) -> str:
        """What the path answers; raises `OSError` where it is no success."""
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        url = path if path.startswith("http") else f"{self.url}{path}"
        data = None if body is None else json.dumps(body).encode()
        # Both addresses are of this machine: `cortex dev` serves on loopback only.
        with urlopen(Request(url, data, headers), timeout=30) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text

    def exchanges(self) -> int:
        """How many requests for credentials Cortex has answered."""
        counted = r'^cortex_http_request_seconds_count\{[^}]*route="/v1/credentials"[^}]*\} (\d+)$'
        return sum(int(number) for number in re.findall(counted, self.ask("/metrics"), re.MULTILINE))

    def issuances(self) -> Counter[tuple[str, str, str]]:
        """The record: how often each run was issued a credential of each provider, or not (its outcome)."""
        person = {"person": {"sub": "auditor@acme.example", "groups": ["auditors"]}}
        token = json.loads(self.ask(f"{self.issuer_url}/token", body=person))["token"]
        found: Counter[tuple[str, str, str]] = Counter()
        query = {"policy": "load", "limit": "200"}
        while True:
            page = json.loads(self.ask(f"/v1/issuances?{urlencode(query)}", token))
            found.update((row["run_id"], row["provider"], row["outcome"]) for row in page["issuances"])
            if not page["next"]:
                return found
            query["before"] = page["next"]


@contextmanager
def cortex_dev(command: list[str], folder: Path) -> Iterator[Dev]:
    """Serves Cortex with the one policy until the block ends; raises `RuntimeError` when it does not start."""
    policies = folder / "load.yaml"
    policies.write_text(POLICY)
    log = folder / "cortex.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", "--policies", str(policies)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _introduced(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _introduced(process: subprocess.Popen[bytes], log: Path) -> Dev:
    """The addresses that `cortex dev` prints when it serves."""
    until = time.monotonic() + START_WAIT
    while time.monotonic() < until and process.poll() is None:
        said = log.read_text(errors="replace")
        url, issuer = re.search(r"^Cortex +(http\S+)", said, re.M), re.search(r"^runs' issuer +(http\S+)\n", said, re.M)
        if url and issuer:
            return Dev(url[1], issuer[1])
        time.sleep(0.1)
    raise RuntimeError(f"`cortex dev` does not start:\n{log.read_text(errors='replace')[-4000:]}")


def task(backend: Callable[..., Any], kwargs: Mapping[str, Any], number: int, barrier: Any, pipe: Pipe) -> None:  # noqa: ANN401
    """One task in a process of its own: its threads look up all connections, each in an order of its own."""
    from structlog.contextvars import bound_contextvars

    seen = Seen()
    run_id = f"scheduled__{number}"
    # What Airflow binds to the log lines of a task, from which the backend knows the run.
    run = {"ti_id": str(uuid.uuid4()), "dag_id": f"load_{number}", "run_id": run_id, "task_id": "start"}
    look_up = backend(**kwargs).get_connection
    with (
        bound_contextvars(**run, try_number=1, map_index=-1),
        counted_exchanges(lambda: seen.exchanges.update([run_id])),
        ThreadPoolExecutor(THREADS) as pool,
    ):
        contexts = [copy_context() for _ in range(THREADS)]
        barrier.wait(END_WAIT)
        began = time.monotonic()
        threads = [
            pool.submit(context.run, lookups, look_up, turn, began, seen) for turn, context in enumerate(contexts)
        ]
        seen.first.append(min(one.result() for one in threads))
    pipe.send(seen)


@contextmanager
def counted_exchanges(count: Callable[[], None]) -> Iterator[None]:
    """Counts, within the block, what leaves this process for `/v1/credentials`."""
    import httpx

    send = httpx.HTTPTransport.handle_request

    def counted(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/credentials":
            count()
        return send(self, request)

    with patch.object(httpx.HTTPTransport, "handle_request", counted):
        yield


def lookups(look_up: Callable[[str], object], turn: int, began: float, seen: Seen) -> float:
    """One thread of a task; answers how long after the start its first lookup had its answer, in seconds."""
    first = 0.0
    for number in range(ROUNDS * len(TARGETS)):
        conn_id = f"cortex_load__{TARGETS[(turn + number) % len(TARGETS)]}"
        since = time.monotonic()
        try:
            if look_up(conn_id) is None:
                seen.failures.append(f"{conn_id}: nobody answers")
        # Airflow 2's refusals are no `Exception`.
        except BaseException as error:
            seen.failures.append(f"{conn_id}: {error}")
        if number:
            seen.repeated.append(time.monotonic() - since)
        else:
            first = time.monotonic() - began
    return first


def run_tasks(kwargs: Mapping[str, Any]) -> Seen:
    """Runs all tasks, forked from a process that has loaded Airflow, as its LocalExecutor does.

    Raises `RuntimeError` when one of them ends without an answer.
    """
    from cortex_provider.secrets import CortexBackend

    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(TASKS)
    running: list[tuple[Pipe, Any]] = []
    all_seen = Seen()
    # Workers have machines of their own; here they share the cores with Cortex, and give way to it.
    os.nice(19)
    # So that the children share the pages of what is loaded.
    gc.freeze()
    try:
        for number in range(TASKS):
            ours, theirs = fork.Pipe(duplex=False)
            process = fork.Process(target=task, args=(CortexBackend, kwargs, number, barrier, theirs), daemon=True)
            process.start()
            theirs.close()
            running.append((ours, process))
        until = time.monotonic() + END_WAIT
        for pipe, _ in running:
            if not pipe.poll(max(0.0, until - time.monotonic())):
                raise RuntimeError(f"the tasks have not ended after {END_WAIT} s")
            all_seen.add(pipe.recv())
    except EOFError:
        raise RuntimeError("a task's process ended before its lookups did") from None
    finally:
        for _, process in running:
            process.kill()
            process.join()
    return all_seen


def quantile(values: list[float], part: float) -> float:
    """A quantile of durations in seconds, in milliseconds."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] * 1000


def faults(seen: Seen, exchanges: int, issuances: Counter[tuple[str, str, str]]) -> list[str]:
    """What is not as it has to be."""
    found = [f"lookup failed: {failure}" for failure in sorted(set(seen.failures))[:5]]
    runs = [f"scheduled__{number}" for number in range(TASKS)]
    wrong = {run: seen.exchanges[run] for run in runs if seen.exchanges[run] != 1}
    if wrong:
        some = dict([*wrong.items()][:3])
        found.append(f"{len(wrong)} tasks had another number of exchanges than one, such as {some}")
    if exchanges != seen.exchanges.total():
        found.append(f"the workers sent {seen.exchanges.total()} exchanges, Cortex answered {exchanges}")
    expected = Counter((run, provider, "issued") for run in runs for provider in TARGETS)
    if issuances != expected:
        differ = (issuances - expected) + (expected - issuances)
        found.append(f"the record is not one issuance for each task and target: {dict(differ.most_common(3))}")
    return found


def report(seen: Seen, exchanges: int, issuances: Counter[tuple[str, str, str]]) -> None:
    """Prints the table."""
    sent = seen.exchanges.total()
    rows = (
        ("tasks that start at once", f"{TASKS}"),
        ("lookups", f"{TASKS * THREADS * ROUNDS * len(TARGETS)}"),
        ("exchanges, as the workers sent them", f"{sent}"),
        ("exchanges, as Cortex answered them", f"{exchanges}"),
        ("issuances on record", f"{issuances.total()}"),
        ("exchanges per task", f"{sent / TASKS:.2f}"),
        ("first lookup, p50, ms", f"{quantile(seen.first, 0.5):.1f}"),
        ("first lookup, p99, ms", f"{quantile(seen.first, 0.99):.1f}"),
        ("repeated lookup, p50, ms", f"{quantile(seen.repeated, 0.5):.2f}"),
        ("repeated lookup, p99, ms", f"{quantile(seen.repeated, 0.99):.2f}"),
        ("failed lookups", f"{len(seen.failures)}"),
    )
    print("| figure | |\n|---|--:|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def main(command: list[str]) -> int:
    """Runs the measurement with the `cortex dev` that the command starts."""
    if not command:
        print("usage: load.py COMMAND ARG...", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="cortex-load-") as name:
        folder = Path(name)
        os.environ.update(AIRFLOW_HOME=name, AIRFLOW__CORE__LOAD_EXAMPLES="False")
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
        with cortex_dev(command, folder) as dev:
            kwargs = {"url": dev.url, "identity": "development", "issuer_url": dev.issuer_url, "timeout": END_WAIT}
            seen = run_tasks(kwargs)
            exchanges, issuances = dev.exchanges(), dev.issuances()
    report(seen, exchanges, issuances)
    found = faults(seen, exchanges, issuances)
    for fault in found:
        print(f"load: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (RuntimeError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        sys.exit(1)
