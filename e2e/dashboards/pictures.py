"""Draw what each dashboard shows over the tests' stage: `python -m e2e.dashboards.pictures FOLDER`.

Not Grafana: the same queries against the same kind of Prometheus, drawn by matplotlib, so that a reader sees
what will be there.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from e2e.dashboards.stage import filled_in, stage
from e2e.support.prometheus import Prometheus
from tools.dashboards.boards import BOARDS
from tools.dashboards.panels import Board, Panel

_SECONDS = 30
_COLUMNS = 3
_MOST_LINES = 8


def _legend(template: str, labels: Mapping[str, str]) -> str:
    text = template
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    return f"{value:.4g}"


def _draw(axes: Any, panel: Panel, prometheus: Prometheus) -> None:
    axes.set_title(panel.title, fontsize=9, loc="left")
    # A heat map's buckets are drawn as lines, each a rate.
    unit = "short" if panel.kind == "heatmap" else panel.unit
    now = time.time()
    lines: list[tuple[str, list[float], list[float]]] = []
    for query in panel.queries:
        for series in prometheus.series(filled_in(query.expr), _SECONDS):
            points = [(float(at), float(value)) for at, value in series["values"] if math.isfinite(float(value))]
            if points:
                name = _legend(query.legend, series["metric"])
                lines.append((name, [at - now for at, _ in points], [value for _, value in points]))
    if panel.kind == "stat":
        axes.axis("off")
        text = "   ".join(f"{name}: {_shown(values[-1], panel.unit)}" for name, _, values in lines[:3])
        axes.text(0.5, 0.5, text or "no data", ha="center", va="center", fontsize=13)
        return
    for name, at, values in lines[:_MOST_LINES]:
        axes.plot(at, values, linewidth=1.2, label=name[:40])
    axes.set_xlim(-_SECONDS, 0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _shown(value, unit)))
    axes.tick_params(labelsize=7)
    axes.grid(visible=True, alpha=0.25)
    if lines:
        axes.legend(fontsize=6, loc="upper left", framealpha=0.6)


def draw(board: Board, prometheus: Prometheus, path: Path) -> None:
    """Write one board as PNG."""
    panels: Sequence[Panel] = [panel for row in board.rows for panel in row.panels]
    rows = math.ceil(len(panels) / _COLUMNS)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(15, 2.6 * rows), squeeze=False, layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, prometheus)
    figure.suptitle(f"{board.title}: {board.description}", fontsize=11)
    figure.savefig(path, dpi=80, metadata={"Software": None})
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    """Draw every board into the folder."""
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as prometheus:
        for board in BOARDS:
            draw(board, prometheus, out / f"{board.uid}.png")
            print(out / f"{board.uid}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
