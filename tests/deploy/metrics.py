"""The measurements that there are, as docs/metrics.md lists them; a test of the server holds that page to its code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What Prometheus adds to every series, and what it makes itself.
ADDED = {"instance", "job"}
OF_PROMETHEUS = {"up": {"instance", "job"}}

WORD = re.compile(r"[a-z_]+(?=[\s{\[)/(*+<>=-]|$)")
SELECTOR = re.compile(r"([a-z_]+)\{([^}]*)\}")
NAMES = ("cortex_", "process_")


@dataclass(frozen=True)
class Metric:
    """One measurement."""

    kind: str
    labels: frozenset[str]


def listed() -> dict[str, Metric]:
    """Every series' name, those of histograms with their endings."""
    found: dict[str, Metric] = {}
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not cells[0].startswith("`"):
            continue
        name, kind, labels = cells[0].strip("`"), cells[1], frozenset(re.findall(r"`(\w+)`", cells[2]))
        if kind == "histogram":
            found[f"{name}_bucket"] = Metric(kind, labels | {"le"})
            found[f"{name}_sum"] = found[f"{name}_count"] = Metric(kind, labels)
        else:
            found[name] = Metric(kind, labels)
    return found


def faults(expression: str) -> list[str]:
    """What a query names that is not measured: names, and labels in its selectors."""
    known = listed()
    names = {word for word in WORD.findall(re.sub(r'"[^"]*"', '""', expression)) if word.startswith(NAMES)}
    wrong = [f"{name} is not measured" for name in sorted(names - known.keys())]
    for name, matchers in SELECTOR.findall(expression):
        labels = OF_PROMETHEUS.get(name) or (known[name].labels | ADDED if name in known else set())
        wrong += [
            f"{name} has no label {label}"
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers))
            if label not in labels
        ]
    return wrong
