"""Two operators never act as the holder at once, whatever their clocks, the network and the API server do."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_operator.plan.election import LEASE_S, RENEW_S, Election, Record, Step

NAMES = ("a", "b", "c")
Turn = tuple[float, float, float, bool]
"""Pause before a look, time of its write on the way there, of the answer on the way back, whether that arrives."""

TIMES = st.floats(0.0, 20.0, allow_nan=False)
GAMES = st.tuples(
    st.lists(st.tuples(st.sampled_from(NAMES), TIMES, TIMES, TIMES, st.booleans()), min_size=1, max_size=25),
    st.dictionaries(st.sampled_from(NAMES), st.floats(-1e6, 1e6, allow_nan=False)),
)
Game = tuple[list[tuple[str, float, float, float, bool]], dict[str, float]]


def held_at_once(game: Game) -> int:
    """The most holders at any moment; each candidate has a clock of its own, and plays its turns in order."""
    turns, clocks = game
    candidates = {name: Election(name) for name in NAMES}
    record, versions, numbers = Record("", "t0", 0, "1"), itertools.count(2), itertools.count()
    agenda: list[tuple[float, int, Callable[[float], None]]] = []
    most = 0

    def at(time_s: float, what: Callable[[float], None]) -> None:
        heapq.heappush(agenda, (time_s, next(numbers), what))

    def play(name: str, mine: list[Turn]) -> Callable[[float], None]:
        def look(now_s: float) -> None:
            if not mine:
                return
            pause_s, there_s, back_s, arrives = mine.pop(0)

            def act(sent_s: float) -> None:
                step = candidates[name].step(record, sent_s + clocks.get(name, 0.0))
                seen = record.resource_version
                if step is Step.WAIT:
                    look(sent_s)
                    return

                def land(landed_s: float) -> None:
                    nonlocal record
                    is_first = record.resource_version == seen
                    if is_first:
                        version = str(next(versions))
                        record = Record(name, f"t{version}", 0, version)

                    def answer(now_s: float) -> None:
                        if arrives and is_first:
                            candidates[name].renewed(sent_s + clocks.get(name, 0.0))
                        elif arrives:
                            candidates[name].lost()
                        look(now_s)

                    at(landed_s + back_s, answer)

                at(sent_s + there_s, land)

            at(now_s + pause_s, act)

        return look

    for name in NAMES:
        play(name, [each[1:] for each in turns if each[0] == name])(0.0)
    while agenda:
        now_s, _, what = heapq.heappop(agenda)
        what(now_s)
        most = max(most, sum(each.holds(now_s + clocks.get(name, 0.0)) for name, each in candidates.items()))
    return most


@given(GAMES)
def test_never_two_at_once(game: Game) -> None:
    """Writes that land late, answers that are lost, clocks that differ by days."""
    assert held_at_once(game) <= 1


def _never_steps_down(self: Election, now_s: float) -> bool:
    """Planted: who has won acts until it reads that another has."""
    return self._renewed_at_s is not None


def _impatient(self: Election, record: Record | None, now_s: float) -> Step:
    """Planted: another's record is taken after the time in which it is renewed."""
    assert record is not None
    return _STEP(self, Record(record.holder, record.renewed, 0, record.resource_version, RENEW_S / 2), now_s)


def _takes_at_sight(self: Election, record: Record | None, now_s: float) -> Step:
    """Planted: a record that was not seen before counts as old, as if its times had been compared with this clock."""
    assert record is not None
    if record.holder not in ("", self.identity):
        self._seen, self._seen_at_s = (record.holder, record.renewed), now_s - LEASE_S
    return _STEP(self, record, now_s)


def _counts_from_the_answer(self: Election, sent_at_s: float) -> None:
    """Planted: the time on the way is added to the right to act."""
    _RENEWED(self, sent_at_s + 19.0)


_STEP, _RENEWED = Election.step, Election.renewed
QUICK = (0.0, 0.0, True)
WINS = ("a", 0.0, *QUICK)
BUGS: list[tuple[str, Callable[..., object], Game]] = [
    ("holds", _never_steps_down, ([WINS, ("b", 1.0, *QUICK), ("b", 16.0, *QUICK)], {})),
    ("step", _impatient, ([WINS, ("b", 1.0, *QUICK), ("b", 6.0, *QUICK)], {})),
    ("step", _takes_at_sight, ([WINS, ("b", 1.0, *QUICK)], {})),
    (
        "renewed",
        _counts_from_the_answer,
        ([("a", 0.0, 0.0, 19.0, True), ("b", 1.0, *QUICK), ("b", 16.0, *QUICK)], {}),
    ),
]


@pytest.mark.parametrize(("name", "broken", "game"), BUGS, ids=[each[1].__name__ for each in BUGS])
def test_a_planted_bug_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., object], game: Game
) -> None:
    """The schedule keeps the law without it and breaks it with it."""
    assert held_at_once(game) <= 1
    monkeypatch.setattr(Election, name, broken)

    assert held_at_once(game) == 2
