"""Laws of judging: statuses are told of what the plan has seen, and nothing that changed is passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_operator.api.conditions import ConditionStatus
from ratelimit_operator.api.status import RateLimitPolicyStatus
from ratelimit_operator.plan.distribution import ResourceId
from ratelimit_operator.plan.judging import Evidence, Judge, Wanted
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.planning import Plan, PolicyPlan, plan
from ratelimit_operator.plan.precedence import Contests
from ratelimit_operator.plan.statuses import Replicas
from ratelimit_operator.plan.world import World
from support.plan_worlds import histories, of, policy, rule, world

NOW, TOTAL = "2026-01-01T00:00:00Z", 2
Step = tuple[str, int]


class Play:
    """A control loop in miniature: objects are seen, plans are made, replicas answer, statuses are written.

    Attributes:
        missed: Objects that were judged otherwise, or not at all, than a judge without a memory does.
        claims: Objects whose status says of their newest spec what no replica has acknowledged.
    """

    def __init__(self, worlds: list[World]) -> None:
        self.missed: set[str] = set()
        self.claims: set[str] = set()
        self._worlds, self._at = worlds, 0
        self._policies, self._profiles = dict(worlds[0].policies), dict(worlds[0].profiles)
        self._acked: dict[ResourceId, int] = {}
        self._judge = Judge("tidegate")
        self._unjudged: set[str] | None = None
        self._plan: Plan = plan(self._world(), Live(), Contests())

    def _world(self) -> World:
        return msgspec.structs.replace(
            self._worlds[self._at], policies=dict(self._policies), profiles=dict(self._profiles)
        )

    def run(self, steps: Iterable[Step]) -> None:
        for what, number in (*steps, ("look", 0)):
            getattr(self, f"_{what}")(number)
            self._look()

    def _see(self, number: int) -> None:
        """One object of the next world comes, changes or goes; no plan knows of it."""
        self._at = min(self._at + 1, len(self._worlds) - 1)
        later = self._worlds[self._at]
        names = sorted({*later.policies, *self._policies})
        if not names:
            return
        name = names[number % len(names)]
        if name in later.policies:
            self._policies[name] = later.policies[name]
        else:
            del self._policies[name]
        self._changed(f"RateLimitPolicy {name}")

    def _compile(self, _number: int) -> None:
        """A plan of everything that was seen; replicas have yet to answer to what is new in it."""
        before = self._plan.distribution.resources
        self._plan = plan(self._world(), self._plan.live, Contests())
        resources = self._plan.distribution.resources
        self._acked = {
            each: count
            for each, count in self._acked.items()
            if each in resources and each in before and resources[each].version == before[each].version
        }
        self._unjudged = None

    def _answer(self, number: int) -> None:
        """One more replica runs what is published."""
        for each in self._plan.distribution.resources:
            self._acked[each] = min(TOTAL, self._acked.get(each, 0) + 1 + number % 2)
        self._unjudged = None

    def _write(self, number: int) -> None:
        """A status is written, and seen."""
        pending = self._look()
        if not pending:
            return
        key = sorted(pending)[number % len(pending)]
        name = key.partition(" ")[2]
        objects: dict[str, Any] = self._policies if key.startswith("RateLimitPolicy") else self._profiles
        objects[name] = msgspec.structs.replace(objects[name], status=pending[key].after)
        self._changed(key)

    def _changed(self, key: str) -> None:
        if self._unjudged is not None:
            self._unjudged.add(key)

    def _look(self, _number: int = 0) -> dict[str, Wanted]:
        evidence = Evidence(
            self._plan, dict(self._policies), dict(self._profiles), {}, {}, Replicas(dict(self._acked), TOTAL, {})
        )
        only, self._unjudged = self._unjudged, set()
        pending = dict(self._judge.judge(evidence, NOW, only))
        anew = dict(Judge("tidegate").judge(evidence, NOW))
        self.missed |= {key for key in {*pending, *anew} if pending.get(key) != anew.get(key)}
        for key, each in pending.items():
            if isinstance(each.after, RateLimitPolicyStatus) and not self._is_true(key.partition(" ")[2], each.after):
                self.claims.add(key)
        return pending

    def _is_true(self, name: str, status: RateLimitPolicyStatus) -> bool:
        """Whether Programmed=True of a generation means that every replica runs the form of that very spec."""
        told = next((each for each in status.conditions if each.type == "Programmed"), None)
        if told is None or told.status is not ConditionStatus.TRUE:
            return True
        live, seen = self._plan.live.policies.get(name), self._policies.get(name)
        return (
            live is not None
            and seen is not None
            and live.generation == told.observed_generation
            and live.manifest == seen.manifest
            and self._acked.get(live.resource.id, 0) == TOTAL
        )


STEPS = st.lists(
    st.tuples(st.sampled_from(["see", "compile", "answer", "write"]), st.integers(0, 5)), min_size=1, max_size=12
)


Game = tuple[list[World], list[Step]]


def _played(game: Game) -> Play:
    play = Play(game[0])
    play.run(game[1])
    return play


GAMES = st.tuples(histories(), STEPS)


@given(GAMES)
def test_judging_what_changed_says_what_judging_everything_says(game: Game) -> None:
    """And Programmed=True is never told of a spec that no plan has seen, or that a replica does not run."""
    play = _played(game)

    assert play.missed == set()
    assert play.claims == set()


def _always_of(self: PolicyPlan, uid: str, generation: int) -> bool:
    """Planted: what was decided about the former spec is told of the newest one."""
    return True


def _forgets_nothing(self: Judge, key: str) -> None:
    """Planted: what waits to be written of an object that has gone goes on waiting."""


def _knows_by_sight(self: Judge, key: str, marks: tuple[object, ...]) -> bool:
    """Planted: only the object itself is compared, not what was planned of it or what replicas say."""
    known, self._judged[key] = self._judged.get(key), marks
    return known is not None and known[0] is marks[0]


def _world(generation: int, *names: str) -> World:
    spec = {"domain": "a.web", "rules": [rule("r1", requests=generation)]}
    return world(of(*(policy(name, spec, generation=generation) for name in names)))


ANSWERED_THEN_SEEN: list[Step] = [("answer", 1), ("see", 0)]
BUGS: list[tuple[type, str, Callable[..., object], str, Game]] = [
    (PolicyPlan, "is_of", _always_of, "claims", ([_world(1, "a/x"), _world(2, "a/x")], ANSWERED_THEN_SEEN)),
    (Judge, "_forget", _forgets_nothing, "missed", ([_world(1, "a/x"), _world(2)], ANSWERED_THEN_SEEN)),
    (Judge, "_is_known", _knows_by_sight, "missed", ([_world(1, "a/x")], [("compile", 0), ("answer", 1)])),
]


@pytest.mark.parametrize(("owner", "name", "broken", "law", "game"), BUGS, ids=[each[2].__name__ for each in BUGS])
def test_a_planted_bug_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: Callable[..., object], law: str, game: Game
) -> None:
    """The game keeps the law without it and breaks it with it."""
    assert getattr(_played(game), law) == set()
    monkeypatch.setattr(owner, name, broken)

    assert getattr(_played(game), law)
