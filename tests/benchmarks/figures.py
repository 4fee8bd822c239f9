"""Plots of measurements, as SVG; a run that finds the same draws the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
mpl.rcParams["font.size"] = 9

from matplotlib import pyplot as plt  # noqa: E402 — after the backend is chosen

_SIZE = (7.5, 3.4)
_OURS, _THEIRS = "#1f6f8b", "#c0c0c0"
Points = Sequence[tuple[float, float]]
"""Of a line, from left to right."""
_METADATA = {"Date": None, "Creator": None}


def bars(target: Path, title: str, unit: str, values: Sequence[tuple[str, float]]) -> None:
    """One bar for each value, ours and those that name nobody in colour."""
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    names = [name for name, _ in values]
    others = ("limits", "throttled")
    colours = [_THEIRS if name.startswith(others) else _OURS for name in names]
    drawn = axes.bar(range(len(values)), [value for _, value in values], color=colours)
    axes.bar_label(drawn, fmt="{:,.4g}")
    axes.set_xticks(range(len(values)), names, rotation=0 if len(values) < 6 else 25, ha="center")
    _finish(figure, axes, target, title, unit)


def lines(
    target: Path, title: str, unit: str, across: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """One line for each series of points."""
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    for name, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], label=name, marker=".")
    axes.set_xlabel(across)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _finish(figure, axes, target, title, unit)


def _finish(figure: plt.Figure, axes: plt.Axes, target: Path, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata=_METADATA)
    plt.close(figure)
    # Matplotlib ends lines of SVG with blanks, which no file of a repository should.
    text = "\n".join(line.rstrip() for line in target.read_text(encoding="utf-8").splitlines())
    target.write_text(text + "\n", encoding="utf-8")
