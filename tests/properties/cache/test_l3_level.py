"""The disk level against a dictionary: opened again and again, full, and with keys that rotate."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ratelimit_service.cache.l3 import L3, KeyRing, SealingKey
from ratelimit_service.cache.l3.level import MIN_SIZE_BYTES

keys = st.integers(0, 3).map(lambda number: f"key-{number}" * (1 + number % 3 * 40))


class LevelAgainstModel(RuleBasedStateMachine):
    """Whatever is done, an answer is the last value put or none, and none only where room was short."""

    make: ClassVar[type[L3]] = L3

    @initialize(sealed=st.booleans())
    def begin(self, sealed: bool) -> None:
        """An empty folder."""
        self.folder = tempfile.TemporaryDirectory()
        self.rings = [SealingKey(b"0" * 32)] if sealed else None
        self.latest: dict[str, tuple[bytes, int]] = {}
        self.number = 0
        self.level = self._opened()

    def _opened(self) -> L3:
        ring = KeyRing(self.rings) if self.rings is not None else None
        return self.make(Path(self.folder.name), MIN_SIZE_BYTES, keys=ring)

    @rule(
        keys=st.lists(keys, max_size=4, unique=True),
        size_bytes=st.sampled_from([0, 5, 2_500]),
        expires_us=st.integers(1, 9),
    )
    def put_many(self, keys: list[str], size_bytes: int, expires_us: int) -> None:
        """Some values in one transaction."""
        items = []
        for key in keys:
            self.number += 1
            items.append((key, self.number.to_bytes(4, "big") + bytes(size_bytes), expires_us))
        assert self.level.put_many(items) == len(items)
        self.latest.update((key, (payload, expires)) for key, payload, expires in items)

    @rule(count=st.integers(1, 3))
    def crowd(self, count: int) -> None:
        """Large values of other keys, that expire first of all: they push each other out before anything else."""
        for number in range(count):
            self.number += 1
            self.level.put(f"large-{number}", self.number.to_bytes(4, "big") * 20_000, expires_us=0)

    @rule(key=keys, now_us=st.integers(0, 10))
    def get(self, key: str, now_us: int) -> None:
        """The answer is right."""
        payload, expires_us = self.latest.get(key, (None, 0))

        assert self.level.get(key, now_us) == (payload if expires_us > now_us else None)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        """A deleted key has no value."""
        assert self.level.delete(key) == (self.latest.pop(key, None) is not None)

    @rule()
    def clear(self) -> None:
        """After it there is nothing."""
        self.level.clear()
        self.latest.clear()

    @rule()
    def open_again(self) -> None:
        """Nothing is lost by it."""
        self.level.close()
        self.level = self._opened()

        assert self.level.report is None

    @rule()
    def rotate(self) -> None:
        """A new key to write with, where there are keys."""
        self.level.close()
        if self.rings is not None:
            self.rings.append(SealingKey(len(self.rings).to_bytes(1, "big") * 32))
        self.level = self._opened()

    @invariant()
    def items_are_the_model(self) -> None:
        """All that is told is what the model has."""
        told = {record.key: (record.payload, record.expires_us) for record in self.level.items(0)}

        assert told == self.latest

    def teardown(self) -> None:
        """Leave no folder behind."""
        self.level.close()
        self.folder.cleanup()


def run(level: type[L3], *, max_examples: int, phases: list[Phase], derandomize: bool = False) -> None:
    """Run the machine on a level."""

    class Machine(LevelAgainstModel):
        make = level

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=15,
            deadline=None,
            derandomize=derandomize,
            database=None,
            report_multiple_bugs=False,
            phases=phases,
        ),
    )


def test_level_answers_as_a_dictionary() -> None:
    """No sequence of calls finds a wrong answer or a lost value."""
    run(L3, max_examples=25, phases=[Phase.explicit, Phase.generate, Phase.shrink])


class DeletesUnderOneNameOnly(L3):
    """Bug: a value that an older key sealed comes back after a delete."""

    def _remove(self, names: list[bytes]) -> int:
        return super()._remove(names[:1])


class IgnoresExpiry(L3):
    """Bug: the time is not looked at."""

    def get(self, key: str, now_us: int = 0) -> bytes | None:
        return super().get(key)


class ForgetsAtOpening(L3):
    """Bug: what was there before is not."""

    def _open(self) -> None:
        super()._open()
        self.clear()


@pytest.mark.parametrize("mutant", [DeletesUnderOneNameOnly, IgnoresExpiry, ForgetsAtOpening])
def test_model_catches_planted_bug(mutant: type[L3]) -> None:
    """Each planted bug breaks the model."""
    with pytest.raises(AssertionError):
        # It ends at the first find; what is generated depends on what else was imported, so there is room.
        run(mutant, max_examples=3_000, phases=[Phase.generate], derandomize=True)
