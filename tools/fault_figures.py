"""The figures of real processes under faults: `docs/explanation/fault-figures.md` from what `tests.chaos.run` wrote."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

KEPT: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "chaos.json"
_MODES: Final = ("Closed", "Reserved", "Share")
_AIMED_S: Final = 2.0

Phase = Mapping[str, Any]


def render_fault_figures() -> str:
    """The page."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    phases: Sequence[Phase] = kept["phases"]
    facts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in kept["machine"].items() if key != "revision")
    judged = [each for phase in phases for each in phase["judged"]]
    calls, admitted = (sum(phase[what] for phase in phases) for what in ("calls", "admitted"))
    bad = sum(not each["is_good"] for each in judged)
    late = sum(phase["recovered_s"] is None or phase["recovered_s"] > _AIMED_S for phase in phases)
    lines = [
        "# Figures under faults",
        "",
        "Made by `make generate` from what `python -m tests.chaos.run` wrote.",
        "What is done, and how it is judged: [what holds when things break](under-faults.md).",
        "",
        f"[chaos.json](../benchmarks/chaos.json): {facts}.",
        "",
        f"{len(phases)} phases, {calls:,} calls, {admitted:,} admitted.",
        f"Of {len(judged)} verdicts, a mode in a phase each, {bad} went beyond what they may.",
        f"{late} phases recovered later than the {_AIMED_S:g} s that are aimed at, or not within the time watched.",
        "",
        "Hits beyond the law, the worst of all worlds and laws, and in brackets what may be there in a window.",
        "A bucket's bound is depth and rate, so over several seconds more than that number may be within it.",
        "Times are of calls to replicas that ran, scheduling included.",
        "Read them beside the first row, in which nothing is broken, and beside the load.",
    ]
    for redis in ("single", "sentinel", "cluster"):
        lines += ["", f"## {redis.capitalize()}", "", *_table([p for p in phases if p["setting"].startswith(redis)])]
    return "\n".join(lines) + "\n"


def _table(phases: Sequence[Phase]) -> Iterator[str]:
    yield "| fault | " + " | ".join(_MODES) + " | p99 ms, stores | p99 ms, services | recovered after, s |"
    yield "|---|" + "--:|" * (len(_MODES) + 3)
    by_fault: defaultdict[str, list[Phase]] = defaultdict(list)
    for phase in phases:
        by_fault[phase["fault"]].append(phase)
    for fault, some in by_fault.items():
        cells = [_excess(some, mode) for mode in _MODES]
        cells += [_p99(some, "stores"), _p99(some, "services"), _recovered(some)]
        yield f"| {fault} | " + " | ".join(cells) + " |"


def _excess(phases: Sequence[Phase], mode: str) -> str:
    """The verdict that came nearest to its bound, or went furthest beyond it."""
    of_mode = [each for phase in phases for each in phase["judged"] if each["mode"] == mode]
    worst = max(of_mode, key=lambda each: (not each["is_good"], each["excess"] - each["allowed"], each["excess"]))
    shown = "any" if worst["allowed"] >= 2**63 else worst["allowed"]
    return f"{worst['excess']} ({shown})" + ("" if worst["is_good"] else " **beyond**")


def _p99(phases: Sequence[Phase], kind: str) -> str:
    found = [phase["p99_ms"] for phase in phases if f"-{kind}" in phase["setting"]]
    return f"{max(found):,}" if found else "–"


def _recovered(phases: Sequence[Phase]) -> str:
    """Of worlds with the usual rules: the least and the greatest; `Wait` and `Quarantine` wait on purpose."""
    usual = [phase for phase in phases if phase["setting"].count("-") == 1] or list(phases)
    found = [phase["recovered_s"] for phase in usual]
    if None in found:
        return "not in the time watched"
    return f"{statistics.median(found):.2f}" + (f", at most {max(found):.2f}" if len(found) > 1 else "")
