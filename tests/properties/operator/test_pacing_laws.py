"""Writes of status are bounded over every stretch of time, and whatever waits is written in the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_operator.plan.pacing import ALL_BURST, ALL_PER_S, OBJECT_BURST, OBJECT_PER_S, Allowance, Pacer

KEYS = [f"p{number}" for number in range(70)]
GAMES = st.lists(
    st.tuples(
        st.floats(0.0, 3.0, allow_nan=False),
        st.sets(st.sampled_from(KEYS[:4]), max_size=4),
        st.sampled_from([0, 0, 0, 70]),
        st.sampled_from([0.0, 0.4, 10.0]),
    ),
    max_size=25,
)
Game = list[tuple[float, set[str], int, float]]
"""Per look: pause before it, objects that flap, how many of the others, their patience."""


def _writes(game: Game) -> tuple[list[tuple[float, str]], bool]:
    """Every write with its time, and whether nothing was left waiting in the end."""
    pacer, now_s, done = Pacer(0.0), 0.0, []
    waiting: dict[str, float] = {}
    for pause_s, flapping, others, patience_s in game:
        now_s += pause_s
        waiting |= dict.fromkeys([*sorted(flapping), *KEYS[:others]], patience_s)
        # As the writer does it: so many at once, then another look at the same time.
        for _ in range(40):
            chosen, wait_s = pacer.choose(list(waiting.items()), now_s, 6)
            for key in chosen:
                done.append((now_s, key))
                del waiting[key]
            if wait_s != 0.0:
                break
    for _ in range(1_000):
        chosen, wait_s = pacer.choose(list(waiting.items()), now_s, 6)
        for key in chosen:
            done.append((now_s, key))
            del waiting[key]
        if wait_s is None:
            break
        now_s += wait_s + 1e-6
    return done, not waiting


def bounded(game: Game) -> bool:
    """Whether no stretch of time has more writes than its allowance, in all and of one object."""
    done, _ = _writes(game)
    return _within([time_s for time_s, _ in done], ALL_BURST, ALL_PER_S) and all(
        _within([time_s for time_s, key in done if key == each], OBJECT_BURST, OBJECT_PER_S) for each in KEYS
    )


def _within(times: list[float], burst: float, per_s: float) -> bool:
    """Whether every stretch that begins and ends with a write has at most `burst` and what its length allows."""
    lowest = float("inf")
    for number, time_s in enumerate(times):
        lowest = min(lowest, number - time_s * per_s)
        if number - time_s * per_s - lowest + 1 > burst + 1e-3:
            return False
    return True


def finished(game: Game) -> bool:
    """Whether everything that waited was written."""
    return _writes(game)[1]


@given(GAMES)
def test_writes_are_bounded_and_nothing_waits_for_ever(game: Game) -> None:
    """50/s in all with a burst of 50, 1/s per object with a burst of 3, whatever flaps."""
    assert bounded(game)
    assert finished(game)


def _take_without_a_clock(self: Allowance, now_s: float) -> None:
    """Planted: what a pause has refilled is given again at the next write."""
    self._level = min(self._burst, self._level + (now_s - self._since_s) * self._per_s) - 1.0


def _forget_objects(self: Pacer, key: str, now_s: float) -> None:
    """Planted: objects are forgotten with their write."""
    self._since_s.pop(key, None)
    self._all.take(now_s)


def _own_allowance_only(self: Pacer, key: str, now_s: float) -> None:
    """Planted: writes are not counted together."""
    before = self._all
    self._all = Allowance(ALL_PER_S, ALL_BURST, now_s)
    _WROTE(self, key, now_s)
    self._all = before


def _patience_anew(self: Pacer, key: str, now_s: float, patience_s: float = 0.0) -> float:
    """Planted: patience begins anew with each look."""
    self._since_s.pop(key, None)
    return _WAIT(self, key, now_s, patience_s)


_WROTE, _WAIT = Pacer.wrote, Pacer.wait_s
NOBODY: set[str] = set()
BUGS: list[tuple[type, str, Callable[..., object], Callable[[Game], bool], Game]] = [
    (Allowance, "take", _take_without_a_clock, bounded, [(0.0, NOBODY, 70, 0.0), (3.0, NOBODY, 70, 0.0)]),
    (Pacer, "wrote", _forget_objects, bounded, [(0.0, {"p0"}, 0, 0.0)] * 6),
    (Pacer, "wrote", _own_allowance_only, bounded, [(0.0, NOBODY, 70, 0.0)]),
    (Pacer, "wait_s", _patience_anew, finished, [(0.0, {"p0"}, 0, 0.4)]),
]


@pytest.mark.parametrize(("owner", "name", "broken", "law", "game"), BUGS, ids=[each[2].__name__ for each in BUGS])
def test_a_planted_bug_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    broken: Callable[..., object],
    law: Callable[[Game], bool],
    game: Game,
) -> None:
    """The game keeps the law without it and breaks it with it."""
    assert law(game)
    monkeypatch.setattr(owner, name, broken)

    assert not law(game)
