"""The pictures of how replicas share a budget: `python -m tools.sharing_pictures` writes docs/images/sharing-*.svg.

They are drawings, not measurements, but what they show is computed by the rules that they explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
mpl.rcParams["font.size"] = 9

from matplotlib import pyplot as plt  # noqa: E402 — after its backend is chosen
from matplotlib.patches import Rectangle  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES: Final = Path(__file__).parent.parent / "docs" / "images"

STORE: Final = "#4c6a92"
LEASED: Final = "#5b9f6b"
OWNED: Final = "#d99a3d"
LOST: Final = "#c0564b"
FAINT: Final = "#c9ced6"


def lease_timeline() -> Figure:
    """One lease, measured from the sending of its take, and a return that comes late."""
    figure, axes = plt.subplots(figsize=(9, 3.9), layout="constrained")
    redis, replica = 1.0, 0.0
    edges = (0.0, 10.0)
    for edge in edges:
        axes.axvline(edge, color=STORE, linewidth=1.2, linestyle="--")
        axes.text(edge + 0.06, 1.42, "a window of Redis begins", color=STORE, fontsize=8)
    for height, name in ((redis, "Redis"), (replica, "replica")):
        axes.plot((-1.0, 12.4), (height, height), color="#444", linewidth=1)
        axes.text(-1.1, height, name, ha="right", va="center")
    # A take, sent at 1, executed at 1.7, answered at 2.4: 8.3 of the window are left when it is executed.
    _message(axes, 1.0, replica, 1.7, redis, "take 40", before=True)
    _message(axes, 1.7, redis, 2.4, replica, "granted 40, to be spent within 8.3 s")
    _bar(
        axes,
        2.4,
        9.3,
        replica - 0.16,
        LEASED,
        "spent here: sent at 1.0, so over at 1.0 + 8.3 = 9.3, before the window is",
    )
    axes.annotate("", (9.3, replica - 0.45), (1.0, replica - 0.45), arrowprops={"arrowstyle": "<->", "color": LEASED})
    axes.text(5.1, replica - 0.58, "8.3 s, from the sending", ha="center", color=LEASED, fontsize=8)
    axes.annotate("", (10.0, redis + 0.22), (1.7, redis + 0.22), arrowprops={"arrowstyle": "<->", "color": STORE})
    axes.text(5.8, redis + 0.26, "8.3 s, as Redis said when it executed the take", ha="center", color=STORE, fontsize=8)
    # A return that is late.
    _message(axes, 9.2, replica, 10.7, redis, "5 back", color=LOST, before=True)
    axes.text(10.78, redis - 0.13, "names a window that is over:\npassed over", color=LOST, fontsize=8, va="top")
    axes.set_xlim(-1.9, 13.2)
    axes.set_ylim(-0.75, 1.6)
    axes.set_yticks([])
    axes.set_xticks(range(0, 13, 2))
    axes.set_xlabel("seconds")
    _bare(axes)
    axes.spines["left"].set_visible(False)
    return figure


def bucket_deferral() -> Figure:
    """Why a bucket charges a lease at its end: the same hits by a naive lease, and by ours."""
    # Burst 10, 1 a second; a lease of 10 that lasts 8 s, spent at its end; then whoever comes takes what there is.
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    for each, defers, title in zip(
        axes, (False, True), ("charged when it is taken: breaks the law", "charged when it ends, as here"), strict=True
    ):
        seconds = [at / 10 for at in range(160)]
        # Tokens in the store's bucket.
        full_again_from = 8.0 if defers else 0.0
        level = [min(10.0, max(0.0, at - full_again_from)) for at in seconds]
        each.plot(seconds, level, color=STORE, label="tokens in the store's bucket")
        each.bar([7.7], [10], width=0.5, color=LEASED, label="10 leased at 0, spent just before 8")
        if not defers:
            each.bar([8.2], [8], width=0.5, color=LOST, label="8 more, refilled meanwhile: 18 at once, burst 10")
        each.set_title(title, fontsize=9)
        each.set_xlabel("seconds")
        each.legend(fontsize=7, loc="upper right")
        each.set_ylim(0, 15)
        _bare(each)
    axes[0].set_ylabel("hits")
    return figure


def standing_shares() -> Figure:
    """A limit of 100 with a standing share of 30 % and three slots: what each may spend without asking, and when."""
    figure, (parts, times) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 2.1), layout="constrained")
    bottom = 0
    for hits, name, color in (
        (10, "slot 0: 10", OWNED),
        (10, "slot 1: 10", OWNED),
        (10, "slot 2: 10", OWNED),
        (70, "by takes: 70", STORE),
    ):
        parts.bar([0], [hits], bottom=[bottom], width=0.7, color=color, edgecolor="white")
        parts.text(0, bottom + hits / 2, name, ha="center", va="center", color="white", fontsize=8)
        bottom += hits
    parts.set_xlim(-0.6, 0.6)
    parts.set_xticks([])
    parts.set_ylabel("hits of a window")
    parts.set_title("a limit of 100, standingShare 30", fontsize=9)
    _bare(parts)
    rows: Sequence[tuple[str, Sequence[tuple[float, float, str]]]] = (
        ("slot 0, replica A", ((0.15, 9.85, OWNED), (10.15, 14.0, OWNED))),
        ("slot 0, replica D", ((20.15, 29.85, OWNED),)),
        ("slot 1, replica B", ((0.15, 9.85, OWNED), (10.15, 19.85, OWNED), (20.15, 29.85, OWNED))),
    )
    for height, (_, runs) in enumerate(rows):
        for begins, ends, color in runs:
            times.add_patch(Rectangle((begins, -height - 0.3), ends - begins, 0.6, color=color))
    times.add_patch(Rectangle((19.0, -1.3), 1.15, 0.6, color=FAINT))
    times.text(14.2, -0.05, "A dies;\nits slot expires", color=LOST, fontsize=8, va="center")
    times.text(
        18.8,
        -1.0,
        "D takes the slot: nothing of its\nown in a window that has begun",
        fontsize=8,
        ha="right",
        va="center",
    )
    for edge in (0, 10, 20, 30):
        times.axvline(edge, color=STORE, linewidth=1, linestyle="--", zorder=0)
    times.set_yticks([-height for height in range(len(rows))], [name for name, _ in rows])
    times.set_xlim(-0.5, 30.5)
    times.set_ylim(-2.6, 0.6)
    times.set_xlabel("seconds; gaps at edges: half a round trip, and drift")
    times.set_title("when a slot's 10 hits may be spent without asking", fontsize=9)
    _bare(times)
    return figure


def failover_bound() -> Figure:
    """What may be admitted in one window when a master with unreplicated grants is lost, by rule for the new one."""
    figure, (story, bounds) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1.5, 1), layout="constrained")
    limit, step = 100, (0, 20, 20, 45, 45, 60, 60)
    at = (0, 0, 2, 2, 4, 4, 6)
    story.plot(at, step, color=STORE, label="granted by the old master")
    copied, behind = (0, 0, 2.6, 2.6, 6), (0, 20, 20, 45, 45)
    story.plot(copied, behind, color=FAINT, linestyle="--", label="known to its replica")
    story.axvline(6, color=LOST, linewidth=1.2)
    story.text(6.1, 6, "the master dies", color=LOST, fontsize=8)
    story.plot((6, 7, 7, 12), (45, 45, 60, 60), color=LEASED, label="the new master, as replicas teach it (Learn)")
    story.annotate(
        "taught: the highest count that\na replica was told", (7, 60), (7.5, 30), fontsize=8,
        arrowprops={"arrowstyle": "->", "color": LEASED},
    )  # fmt: skip
    story.axhline(limit, color="#444", linewidth=0.8)
    story.text(0.1, limit + 2, "limit", fontsize=8)
    story.set_ylim(0, 125)
    story.set_xlabel("seconds of one window")
    story.set_ylabel("hits granted")
    story.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, 0.78))
    _bare(story)
    names = ("Wait, or\nQuarantine", "Marks and\nLearn", "Trust")
    beyond = (0, 15, 55)
    bounds.bar(names, [limit] * 3, color=STORE, width=0.6)
    bounds.bar(names, beyond, bottom=[limit] * 3, color=LOST, width=0.6)
    for place, (hits, why) in enumerate(
        zip(beyond, ("0", "≤ granted since each\nreplica's last answer", "≤ what the old\nmaster granted"), strict=True)
    ):
        bounds.text(place, limit + hits + 3, why, ha="center", fontsize=7.5)
    bounds.set_ylim(0, 185)
    bounds.set_ylabel("most hits of this window")
    _bare(bounds)
    return figure


def _message(
    axes: Axes,
    begins: float,
    source: float,
    ends: float,
    target: float,
    text: str,
    *,
    color: str = "#444",
    before: bool = False,
) -> None:
    """An arrow with its text beside it, left of it if `before`."""
    axes.annotate("", (ends, target), (begins, source), arrowprops={"arrowstyle": "->", "color": color})
    at, side = (begins + ends) / 2, -0.15 if before else 0.15
    axes.text(
        at + side, (source + target) / 2, text, fontsize=8, color=color, va="center", ha="right" if before else "left"
    )


def _bar(axes: Axes, begins: float, ends: float, height: float, color: str, text: str) -> None:
    axes.add_patch(Rectangle((begins, height - 0.09), ends - begins, 0.18, color=color))
    axes.text((begins + ends) / 2, height, text, ha="center", va="center", color="white", fontsize=7.5)


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


PICTURES: Final = {
    "sharing-lease": lease_timeline,
    "sharing-bucket": bucket_deferral,
    "sharing-standing": standing_shares,
    "sharing-failover": failover_bound,
}


def main() -> int:
    """Write every picture."""
    for name, draw in PICTURES.items():
        figure = draw()
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
