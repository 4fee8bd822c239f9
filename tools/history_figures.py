"""Whether limiters over Redis keep their law: `docs/explanation/histories.md` from what `compare_histories` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

KEPT: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "histories.json"

Row = Mapping[str, Any]


def render_histories() -> str:
    """The page."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    rows: Sequence[Row] = kept["rows"]
    facts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in kept["machine"].items() if key != "revision")
    skew_ms = max(row["skew_ms"] for row in rows)
    lines = [
        "# Do limiters keep their limit?",
        "",
        "Made by `make generate` from what `python -m tests.benchmarks.compare_histories` wrote.",
        "",
        f"{kept['processes']} processes on one machine call one limiter over one key of one Redis,",
        f"{rows[0]['calls']:,} times in all, with storms around the edges of windows.",
        "A checker of histories computes the most hits that were admitted beyond the law in any window or interval,",
        "from when each call was sent and answered, of which some instant between the two has to do.",
        "It never reports what need not be so; all are judged by the same checker, in one run.",
        "",
        f"In the columns with a skew the clock of one process is {skew_ms} ms ahead, as a host's may be.",
        "",
        "| limiter | strategy | law | limit | admitted | beyond it | admitted, skew | beyond it, skew |",
        "|---|---|---|---|--:|--:|--:|--:|",
        *_lines(rows),
        "",
        "What is beyond is of one interval; a limiter that admits everything shows it in each.",
        "Calls that a busy machine answered too late are denied by failure mode `Closed` here, so ours may admit less",
        "than on a free machine; the others wait for as long as it takes.",
        "",
        f"[histories.json](../benchmarks/histories.json): {facts}.",
    ]
    return "\n".join(lines) + "\n"


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    by_strategy: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        name = row["limiter"] if row["version"] == "this" else f"{row['limiter']} {row['version']}"
        by_strategy.setdefault((name, row["strategy"], row["law"], row["limit"]), []).append(row)
    for named, some in by_strategy.items():
        cells = [
            text
            for row in sorted(some, key=lambda one: int(one["skew_ms"]))
            for text in (f"{row['admitted']:,}", _beyond(row))
        ]
        yield f"| {' | '.join(named)} | {' | '.join(cells)} |"


def _beyond(row: Row) -> str:
    return f"**{row['over']:,}** ({row['over_percent']:,} %)" if row["over"] else "0"
