"""The memory level against a dictionary with time, and its account against what it holds."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ratelimit_service.cache.entry import NEVER_US, Entry
from ratelimit_service.cache.l1 import L1, Eviction, Pressure
from ratelimit_service.cache.l1.level import MIN_BYTES

MAX_ENTRIES = 80

keys = st.integers(0, 120).map("key-{}".format)


class LevelAgainstModel(RuleBasedStateMachine):
    """Whatever is done, an answer is the last value put, alive, or none; and the account is right."""

    make: ClassVar[type[L1[int]]] = L1

    @initialize(policy=st.sampled_from(Eviction))
    def begin(self, policy: Eviction) -> None:
        """A level so small that both bounds are met."""
        self.level = self.make(MAX_ENTRIES, MIN_BYTES, warning_percent=50, critical_percent=80, policy=policy)
        self.now_us = 1_000
        self.latest: dict[str, tuple[int, int]] = {}
        self.number = 0

    @rule(
        first=st.integers(0, 120),
        count=st.sampled_from([1, 5, 30, 100]),
        size_bytes=st.sampled_from([10, 10, 10, 300, 3_000, 15_000, 30_000]),
        life_us=st.sampled_from([0, 1, 50, NEVER_US, NEVER_US]),
        cost_us=st.sampled_from([0, 5]),
    )
    def put(self, first: int, count: int, size_bytes: int, life_us: int, cost_us: int) -> None:
        """Some values, of keys in a row."""
        for key in [f"key-{number}" for number in range(first, first + count)]:
            self.number += 1
            had_room = self.level.pressure is Pressure.NORMAL
            expires_us = min(NEVER_US, self.now_us + life_us)
            stored = self.level.put(
                key, self.number, now_us=self.now_us, size_bytes=size_bytes, expires_us=expires_us, cost_us=cost_us
            )
            self.latest[key] = (self.number, expires_us) if stored else (0, 0)
            entry = self.level.peek(key, self.now_us)

            assert (entry is not None) == (stored and life_us > 0)
            assert stored or size_bytes > 300 or not had_room, "a small value finds room below warning"
            assert entry is None or entry.cost_us == cost_us

    @rule(keys=st.lists(keys, max_size=30))
    def get(self, keys: list[str]) -> None:
        """What is answered is right."""
        for key in keys:
            entry = self.level.get(key, self.now_us)
            if entry is not None:
                assert (entry.value, entry.expires_us) == self.latest[key]
                assert entry.expires_us > self.now_us

    @rule(key=keys)
    def delete(self, key: str) -> None:
        """A deleted key has no value."""
        self.level.delete(key, self.now_us)
        self.latest[key] = (0, 0)

        assert self.level.get(key, self.now_us) is None

    @rule()
    def clear(self) -> None:
        """After it there is nothing."""
        self.level.clear()
        self.latest.clear()

        assert len(self.level) == 0
        assert self.level.keys(self.now_us) == []

    @rule(passed_us=st.integers(1, 60))
    def wait(self, passed_us: int) -> None:
        """Time passes."""
        self.now_us += passed_us

    @rule(budget=st.sampled_from([0, 1, 128, 10_000]))
    def reclaim(self, budget: int) -> None:
        """Housekeeping."""
        before = self.level.used_bytes
        freed = self.level.reclaim(self.now_us, budget)

        assert freed >= 0
        assert self.level.used_bytes <= before + 8_192, "the tables may be measured anew"

    @invariant()
    def bounds_hold(self) -> None:
        """Entries and bytes stay within their bounds; only the tables may grow past the critical line."""
        stats = self.level.stats()

        assert stats.entries <= MAX_ENTRIES
        assert stats.used_bytes <= stats.max_bytes * 80 // 100 + 4_096
        assert dict(self.level.items(self.now_us)).keys() == set(self.level.keys(self.now_us))

    @invariant()
    def account_is_exact(self) -> None:
        """The account is the sum of what is held, cleared entries included until their memory is given back."""
        orders: list[Any] = [self.level._order, *self.level._retired]
        entries: list[Entry[int]] = [entry for order in orders for entry in order.entries.values()]

        assert self.level.used_bytes == sum(entry.size_bytes for entry in entries) + self.level._structure_bytes


def run(level: type[L1[int]], *, max_examples: int, phases: list[Phase], derandomize: bool = False) -> None:
    """Run the machine on a level."""

    class Machine(LevelAgainstModel):
        make = level

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=derandomize,
            database=None,
            report_multiple_bugs=False,
            phases=phases,
        ),
    )


def test_level_answers_as_a_dictionary_with_time() -> None:
    """No sequence of calls finds a wrong answer, a bound passed, or a wrong account."""
    run(L1, max_examples=20, phases=[Phase.explicit, Phase.generate, Phase.shrink])


class KeepsTheOldValue(L1[int]):
    """Bug: a refused put leaves the value that it should have replaced."""

    def _refuse(self, entry: Entry[int] | None, size: int, now_us: int) -> None:
        super()._refuse(None, size, now_us)


class ServesExpired(L1[int]):
    """Bug: an entry lives a microsecond too long."""

    def get(self, key: str, now_us: int) -> Entry[int] | None:
        return super().get(key, now_us - 1)

    def peek(self, key: str, now_us: int) -> Entry[int] | None:
        return super().peek(key, now_us - 1)


class ForgetsBytesOfExpired(L1[int]):
    """Bug: what expires stays in the account."""

    def _sweep(self, now_us: int) -> int:
        before = self._used_bytes
        found = super()._sweep(now_us)
        self._used_bytes = max(before, self._used_bytes)
        return found


class ClearsNothing(L1[int]):
    """Bug: cleared entries are found again."""

    def clear(self) -> None:
        entries = dict(self._entries)
        super().clear()
        self._entries.update(entries)


class PassesTheLine(L1[int]):
    """Bug: the critical line is drawn too high."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._critical_bytes = self.max_bytes


class DropsTheBound(L1[int]):
    """Bug: one entry too many."""

    def _attend(self, now_us: int) -> None:
        super()._attend(now_us)
        self._attend_at += 1


@pytest.mark.parametrize(
    "mutant",
    [KeepsTheOldValue, ServesExpired, ForgetsBytesOfExpired, ClearsNothing, PassesTheLine, DropsTheBound],
)
def test_model_catches_planted_bug(mutant: type[L1[int]]) -> None:
    """Each planted bug breaks the model."""
    with pytest.raises(AssertionError):
        run(mutant, max_examples=300, phases=[Phase.generate], derandomize=True)
