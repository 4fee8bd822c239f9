"""The figures of the library's limiter: `docs/reference/library-figures.md` from what its benchmarks wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "benchmarks"
_WORDS = {"cpu": "CPU", "us": "µs", "mib": "MiB", "ms": "ms"}
_PARTS: Sequence[tuple[str, str, str, str, str]] = (
    (
        "adapter.json",
        "memory",
        "A check in memory",
        "adapter-check.svg",
        """1,000 keys, no denial. Ours is awaited, those of the rivals are plain calls.
A token bucket that is full again at each check, as most are here, costs more: its key is dropped and made again.""",
    ),
    (
        "adapter.json",
        "redis",
        "A check over Redis",
        "",
        "100 keys, one caller. Rivals make a round trip for each check; here most are spent from leases.",
    ),
    (
        "adapter.json",
        "processes",
        "Several processes on one Redis",
        "adapter-processes.svg",
        "Each checks the same 100 keys, sliding window, leased, on two cores.",
    ),
    (
        "adapter.json",
        "concurrent",
        "50,000 concurrent checks",
        "adapter-concurrent.svg",
        """All at once on one event loop, over 100 keys. In memory none of them waits, nor over Redis where the hits
were taken ahead (`warmup_rate_limit_keys`). With nothing in hand the checks of a key wait for one order together. They
begin in one turn of the loop, so each waits until the last has begun: that time is the loop's, not the store's.""",
    ),
    (
        "adapter.json",
        "keys",
        "What a key takes",
        "",
        "100,000 keys that were checked once; 13 characters of each vary.",
    ),
    (
        "library-load.json",
        "memory",
        "An hour of keys that come and go",
        "library-memory.svg",
        "Virtual time: 300 new keys a second and 2,000 regular ones; what Python has allocated.",
    ),
    (
        "library-load.json",
        "warming",
        "First checks of keys, warmed or not",
        "library-warming.svg",
        "Over leased Redis; warmed with 10 hits each right before.",
    ),
    (
        "library-load.json",
        "compression",
        "Compression of values",
        "library-compression.svg",
        "Rows of JSON, by the cache's engine.",
    ),
)


def render_library_figures() -> str:
    """The page."""
    lines = [
        "# Figures of the library's limiter",
        "",
        "Made by `make generate` from what `python -m tests.benchmarks.bench_adapter` and `bench_library_load` wrote.",
        "CPU is process time of the process that checks; figures of one run belong together, compare ratios.",
    ]
    machines = {name: _read(name)["machine"] for name in ("adapter.json", "library-load.json")}
    for name, facts in machines.items():
        assert isinstance(facts, Mapping)
        shown = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items() if key != "revision")
        lines.append(f"[{name}](../benchmarks/{name}): {shown}.")
        later = _read(name).get("later")
        if isinstance(later, Mapping):
            parts = ", ".join(f"`{part}`" for part in later["parts"])
            lines.append(f"Of it, {parts}: {later['note']}")
    for file, part, title, image, text in _PARTS:
        rows = _read(file)[part]
        assert isinstance(rows, list)
        lines += ["", f"## {title}", "", text, "", *_table(rows)]
        if image:
            lines += ["", f"![{title}](../images/{image})"]
    return "\n".join(lines) + "\n"


def _read(name: str) -> Mapping[str, object]:
    found: Mapping[str, object] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return found


def _table(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    names = list(rows[0])
    yield "| " + " | ".join(" ".join(_WORDS.get(word, word) for word in name.split("_")) for name in names) + " |"
    yield "|" + "|".join("---" if isinstance(rows[0][name], str) else "--:" for name in names) + "|"
    for row in rows:
        yield "| " + " | ".join(_text(row[name]) for name in names) + " |"


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
