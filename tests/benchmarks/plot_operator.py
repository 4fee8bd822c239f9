"""The plot of docs/explanation/distribution.md, from docs/benchmarks/operator_growth.json.

python -m tests.benchmarks.plot_operator
"""

from __future__ import annotations

import sys
from typing import Any, Final

from matplotlib import pyplot as plt

from tests.benchmarks.plot_caches import OTHERS, OURS, read, save

STEPS: Final = {
    "decode_ms": "decoding all, once",
    "first_plan_ms": "the first plan",
    "change_ms": "one policy changes: plan, push, three answers, judging",
    "status_ms": "after one written status",
}


def growth(rows: list[dict[str, Any]]) -> None:
    """Lines of processor time over policies, both on a logarithmic scale, beside what doubling would be."""
    figure, panel = plt.subplots(figsize=(8, 4.6))
    sizes = [row["policies"] for row in rows]
    for (field, title), colour in zip(STEPS.items(), (OURS, "#5aa9c4", "#c4622d", "#7a7a7a"), strict=True):
        panel.plot(sizes, [row[field] for row in rows], marker="o", color=colour, label=title)
    begin = rows[0]["change_ms"]
    panel.plot(sizes, [begin * each / sizes[0] for each in sizes], "--", color=OTHERS, label="twice as much for twice")
    panel.plot(
        sizes, [begin * (each / sizes[0]) ** 2 for each in sizes], ":", color=OTHERS, label="four times for twice"
    )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(sizes, [f"{each:,}" for each in sizes])
    panel.minorticks_off()
    panel.set_xlabel("policies of five rules")
    panel.set_ylabel("ms of processor time")
    panel.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.16))
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, "operator-growth.svg")


def main() -> int:
    """Draw."""
    growth(read("operator_growth.json")["rows"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
