"""The plots of docs/explanation/cache-figures.md, from the JSON in docs/benchmarks.

python -m tests.benchmarks.plot_caches
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from tests.benchmarks.machine import ROOT

BENCHMARKS, IMAGES = ROOT / "docs" / "benchmarks", ROOT / "docs" / "images"
OURS, OTHERS = "#1f6f8b", "#b8b8b8"
POLICIES = {"s3_fifo": "S3-FIFO", "sieve": "SIEVE", "clock": "CLOCK", "lru": "LRU"}


def read(name: str) -> dict[str, Any]:
    """One file of figures."""
    figures: dict[str, Any] = json.loads((BENCHMARKS / name).read_text(encoding="utf-8"))
    return figures


def save(figure: Any, name: str) -> None:
    """Write a plot, the same bytes for the same figures."""
    figure.tight_layout()
    figure.savefig(IMAGES / name, metadata={"Date": None})
    # As editors leave text files.
    path = Path(IMAGES / name)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    plt.close(figure)


def calls(rows: list[dict[str, Any]]) -> None:
    """Bars of a hit and of a put, by cache."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True)
    names = [row["cache"] for row in rows]
    colours = [OURS if name.startswith(("L1", "CacheService")) else OTHERS for name in names]
    for panel, field, title in zip(panels, ("get_ns", "replace_ns"), ("a hit", "a put"), strict=True):
        bars = panel.barh(names, [row[field] for row in rows], color=colours)
        panel.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        panel.set_xscale("log")
        panel.set_xlim(right=20_000)
        panel.set_title(f"{title}, ns")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    save(figure, "cache-calls.svg")


def hits(rows: list[dict[str, Any]]) -> None:
    """Hit ratios, grouped by trace."""
    figure, panel = plt.subplots(figsize=(10, 4.4))
    for number, (field, name) in enumerate(POLICIES.items()):
        places = [at + (number - 1.5) * 0.2 for at in range(len(rows))]
        panel.bar(places, [row[field] for row in rows], 0.2, label=name)
    panel.set_xticks(range(len(rows)), [row["trace"] for row in rows], rotation=20, ha="right", fontsize=8)
    panel.set_ylabel("hit ratio")
    panel.legend(frameon=False, ncols=4)
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, "cache-hits.svg")


def compression(rows: list[dict[str, Any]]) -> None:
    """Ratio against time, by way and size."""
    figure, panel = plt.subplots(figsize=(7, 4.2))
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        panel.plot([row["compress_us"] for row in own], [row["ratio"] for row in own], marker="o", label=way)
        for row in own:
            panel.annotate(f"{row['raw_bytes']:,} B", (row["compress_us"], row["ratio"]), fontsize=7)
    panel.set_xscale("log")
    panel.set_xlabel("compress, µs")
    panel.set_ylabel("ratio")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, "cache-compression.svg")


def main() -> int:
    """Draw all."""
    mpl.rcParams["svg.hashsalt"] = "tidegate"
    mpl.rcParams["svg.fonttype"] = "none"
    level, parts = read("cache_l1.json"), read("cache_parts.json")
    calls(level["costs"])
    hits(level["ratios"])
    compression(parts["compression"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
