"""Checks that wait for a lease together: all are answered, in order, and never admitted beyond the limit.

A whole replica decides, over a shared store in this process whose answers come when the test lets them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.adapter import RateLimitConfig, RateLimitResult, RateLimitStoreLost
from ratelimit_service.algorithms.limit import FailureMode
from ratelimit_service.library.checks import Checks
from ratelimit_service.library.crowds import Crowds
from ratelimit_service.library.quotas import ForeignQuota, LeasedKeys
from support.limiters_of_library import ALGORITHMS
from support.replicas import Rig

HOUR_MS: Final = 3_600_000
DEADLINE_US: Final = 10_000
QUIET: Final = logging.getLogger("test.crowds")
QUIET.setLevel(logging.ERROR)
Told = asyncio.Future[RateLimitResult]


class Place:
    """One key of one replica, and those who wait for it."""

    def __init__(self, algorithm: str = "sliding_window", limit: int = 40, **config: object) -> None:
        self.rig = Rig()
        self.store = self.rig.replica()
        self.orders = self.store.orders
        self.algorithm, self.limit = algorithm, limit
        quota = ForeignQuota(self.store)
        self.checks = Checks(RateLimitConfig(**config), quota, self.rig.clock, QUIET)  # type: ignore[arg-type]
        self.crowds = Crowds(self.checks, self.store, LeasedKeys(self.store), DEADLINE_US)
        self.loop = asyncio.get_running_loop()

    def check(self, hits: int = 1, key: str = "user") -> Told:
        """A check that is decided at once, or waits."""
        decided = self.checks.decide(key, self.limit, HOUR_MS, self.algorithm, hits, None)
        if isinstance(decided, RateLimitResult):
            told: Told = self.loop.create_future()
            told.set_result(decided)
            return told
        assert self.crowds.takes(decided[1][0])
        return self.crowds.join(key, decided)

    async def settle(self) -> None:
        """Let everything happen that happens without time."""
        for _ in range(20):
            await asyncio.sleep(0)
            self.rig.scheduler.run()

    async def pass_time(self, us: int) -> None:
        """Let time pass, and all that follows from it."""
        await self.settle()
        self.rig.advance(us, self.store)
        await self.settle()


def run(work: Callable[[], object]) -> None:
    """Run a coroutine function."""
    asyncio.run(work())  # type: ignore[arg-type]


# Steps of a schedule: check so many hits, leave again (which one), let the store answer, let time pass.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("check"), st.integers(0, 12)),
        st.tuples(st.just("leave"), st.integers(0, 8)),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("answer"), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from((1_000, 9_999, 10_000, 250_000))),
    ),
    max_size=60,
)


@given(steps, st.sampled_from(ALGORITHMS), st.booleans())
@example([("check", 12)] * 8 + [("turn", 0), ("answer", 0)], "fixed_window", False)
@example([("check", 1), ("check", 1), ("leave", 0), ("turn", 0), ("answer", 0)], "sliding_window", False)
@example([("check", 5)] * 6 + [("turn", 0), ("wait", 10_000), ("answer", 0)] + [("check", 5)] * 6, "token_bucket", True)
def test_a_crowd_is_answered_whole_and_never_beyond_the_limit(
    schedule: list[tuple[str, int]], algorithm: str, silent: bool
) -> None:
    """Whoever stays is answered by the deadline; what the store admits is within the limit, whoever left."""

    async def main() -> None:
        place = Place(algorithm, failure=FailureMode.CLOSED)
        place.orders.silent = silent
        told: list[tuple[int, Told]] = []
        for step, number in schedule:
            if step == "check":
                told.append((number, place.check(number)))
            elif step == "leave" and told:
                told[number % len(told)][1].cancel()
            elif step == "turn":
                await place.settle()
            elif step == "answer":
                place.orders.speak()
                await place.settle()
            elif step == "wait":
                await place.pass_time(number)
        for _ in range(4):
            await place.pass_time(DEADLINE_US)

        assert all(each.done() for _, each in told)
        results = [(hits, each.result()) for hits, each in told if not each.cancelled()]
        refill = 1 if algorithm == "token_bucket" else 0
        assert sum(hits for hits, result in results if result.allowed) <= place.limit + refill
        assert not place.checks.crowded
        place.orders.speak()
        await place.settle()
        assert all(cell.awaited == 0 for cell in place.store.book)

    run(main)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_order_does_for_all_of_them(algorithm: str) -> None:
    """A thousand checks of a new key are one take, spent in the order of arrival."""

    async def main() -> None:
        place = Place(algorithm, limit=600)
        told = [place.check() for _ in range(1_000)]
        await place.settle()

        allowed = [each.result().allowed for each in told]
        assert allowed == [True] * 600 + [False] * 400
        assert len(place.orders.sent) <= 3
        assert not any(each.result().degraded for each in told)
        assert sum(place.checks.durations.counts) == 1_000

    run(main)


def test_who_comes_later_waits_behind_and_has_a_deadline_of_its_own() -> None:
    """The first are given up at their deadline; who came later still has time, and is served by the answer."""

    async def main() -> None:
        place = Place(failure=FailureMode.OPEN)
        place.orders.silent = True
        early = [place.check() for _ in range(3)]
        await place.pass_time(6_000)
        late = place.check()
        await place.pass_time(4_000)

        assert [each.result().degraded for each in early] == [True] * 3
        assert not late.done()
        place.orders.speak()
        await place.settle()
        assert late.result().allowed
        assert not late.result().degraded

    run(main)


def test_a_long_turn_of_the_program_is_no_delay_of_the_store() -> None:
    """The deadline begins when the store is asked, however long the turn took in which the checks came."""

    async def main() -> None:
        place = Place()
        told = [place.check()]
        place.rig.clock.advance(10 * DEADLINE_US)
        told.append(place.check())
        await place.settle()

        assert not any(each.result().degraded for each in told)

    run(main)


def test_where_the_store_is_away_all_are_decided_at_once_or_told_so() -> None:
    """By the failure mode; a program that wants an error gets one for each."""

    async def main() -> None:
        for raises in (False, True):
            place = Place(raise_when_degraded=raises)
            place.orders.reachable = False
            told = [place.check() for _ in range(3)]
            await place.settle()
            if raises:
                assert all(isinstance(each.exception(), RateLimitStoreLost) for each in told)
            else:
                assert all(each.result().degraded for each in told)

    run(main)


def test_who_leaves_is_not_counted() -> None:
    """Of a crowd that all leaves, even before it is asked for, nothing remains."""

    async def main() -> None:
        place = Place()
        told = [place.check(2) for _ in range(10)]
        for each in told[1:-1]:
            each.cancel()
        await place.settle()
        assert [told[0].result().remaining, told[-1].result().remaining] == [38, 36]
        gone = place.check(40)
        gone.cancel()
        await place.settle()
        assert not place.checks.crowded

    run(main)


def test_keys_do_not_wait_for_one_another() -> None:
    """Each has its crowd."""

    async def main() -> None:
        place = Place()
        told = {key: [place.check(key=key) for _ in range(5)] for key in ("a", "b")}
        await place.settle()
        assert [each.result().remaining for each in told["a"]] == [each.result().remaining for each in told["b"]]

    run(main)
