"""The library's limiter against the laws themselves: the pure functions of `algorithms`, over plain dictionaries.

The same schedules drive a limiter in memory and one whose store answers later; both answer as the model does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.adapter import RateLimitingCacheAdapter, RateLimitRequest, RateLimitResult
from ratelimit_service.algorithms import fixed_window, sliding_window, token_bucket
from ratelimit_service.library.windows import FixedWindowRateLimit, SlidingWindowRateLimit, TokenBucketRateLimit
from ratelimit_service.quota.memory.store import MemoryStore
from support.clocks import ManualClock
from support.deferred_store import DeferredStore
from support.limiters_of_library import ALGORITHMS
from support.schedulers import ManualScheduler

MS_US: Final = 1_000

Step = tuple[int, RateLimitRequest]
"""How long after the step before, milliseconds, and what is checked."""

requests = st.builds(
    RateLimitRequest,
    key=st.sampled_from(("a", "b")),
    limit=st.integers(1, 4),
    window_ms=st.sampled_from((1, 60, 61)),
    algorithm=st.sampled_from(ALGORITHMS),
    hits=st.integers(0, 5),
)
steps = st.lists(st.tuples(st.sampled_from((0, 1, 2, 30, 59, 60, 61, 62, 200)), requests), min_size=1, max_size=40)


class Model:
    """Counts by the laws; the first limit of an algorithm and window stays, so that rates are not converted."""

    def __init__(self, wall_us: int) -> None:
        self._origin_us = wall_us
        self._limits: dict[tuple[str, int], int] = {}
        self._fixed: dict[Any, tuple[int, int]] = {}
        self._sliding: dict[Any, sliding_window.State] = {}
        self._arrivals: dict[Any, int] = {}

    def settled(self, request: RateLimitRequest) -> RateLimitRequest:
        """The request with the limit that its algorithm and window began with."""
        limit = self._limits.setdefault((request.algorithm, request.window_ms), request.limit)
        return RateLimitRequest(request.key, limit, request.window_ms, request.algorithm, request.hits)

    def fits(self, request: RateLimitRequest, wall_us: int) -> bool:
        """Whether the hits fit; they are counted if so."""
        return getattr(self, f"_{request.algorithm}")(request, (request.key, request.window_ms), wall_us)  # type: ignore[no-any-return]

    def _fixed_window(self, request: RateLimitRequest, at: Any, wall_us: int) -> bool:
        window = fixed_window.window_at(request.window_ms * MS_US, wall_us)
        start_us, used = self._fixed.get(at, (0, 0))
        used = used if start_us == window.start_us else 0
        said = fixed_window.judge(request.limit, used, request.hits, 1)
        if not said.over:
            self._fixed[at] = (window.start_us, fixed_window.spend(used, request.hits))
        return not said.over

    def _sliding_window(self, request: RateLimitRequest, at: Any, wall_us: int) -> bool:
        window_us = request.window_ms * MS_US
        state = self._sliding.get(at, sliding_window.EMPTY)
        part = sliding_window.part_at(window_us, wall_us, 0)
        said = sliding_window.judge(request.limit, window_us, state, part, request.hits, wall_us)
        if not said.over:
            self._sliding[at] = sliding_window.spend(state, part, request.hits)
        return not said.over

    def _token_bucket(self, request: RateLimitRequest, at: Any, wall_us: int) -> bool:
        rate = token_bucket.rate_of(request.limit, request.window_ms * MS_US)
        now_us = wall_us - self._origin_us
        arrival = self._arrivals.get(at, 0)
        said = token_bucket.judge(rate, request.limit, arrival, request.hits, now_us)
        if not said.over:
            self._arrivals[at] = token_bucket.spend(rate, arrival, request.hits, now_us)
        return not said.over


def in_memory(clock: ManualClock) -> Callable[[RateLimitRequest], bool]:
    """A limiter that decides at once."""
    limiter = RateLimitingCacheAdapter(clock=clock)

    def check(request: RateLimitRequest) -> bool:
        result = limiter.check_now(
            request.key, request.limit, request.window_ms, algorithm=request.algorithm, hits=request.hits
        )
        assert result is not None
        return result.allowed

    return check


def deferred(clock: ManualClock) -> Callable[[RateLimitRequest], bool]:
    """A limiter whose store answers on a later turn."""
    scheduler = ManualScheduler()
    store = DeferredStore(MemoryStore(clock=clock, call_soon=scheduler.call_soon), scheduler.call_soon)
    limiter = RateLimitingCacheAdapter(store=store, clock=clock)

    async def main(request: RateLimitRequest) -> RateLimitResult:
        task = asyncio.ensure_future(limiter.check_multiple_rate_limits([request]))
        while not task.done():
            await asyncio.sleep(0)
            scheduler.run()
        return task.result()[0]

    return lambda request: asyncio.run(main(request)).allowed


class ForgetsLooks(RateLimitingCacheAdapter):
    """Planted: a look counts a hit."""

    def check_now(self, key: str, limit: int, window_ms: int, **more: Any) -> RateLimitResult | None:
        return super().check_now(key, limit, window_ms, **{**more, "hits": more["hits"] or 1})


class SharesKeys(RateLimitingCacheAdapter):
    """Planted: keys of one length share a count."""

    def check_now(self, key: str, limit: int, window_ms: int, **more: Any) -> RateLimitResult | None:
        return super().check_now("x" * len(key), limit, window_ms, **more)


class MixesAlgorithms(RateLimitingCacheAdapter):
    """Planted: every check is of a fixed window."""

    def check_now(self, key: str, limit: int, window_ms: int, **more: Any) -> RateLimitResult | None:
        return super().check_now(key, limit, window_ms, **{**more, "algorithm": "fixed_window"})


def agree(check_of: Callable[[ManualClock], Callable[[RateLimitRequest], bool]], schedule: list[Step]) -> bool:
    """Whether a limiter and the model give the same answers."""
    clock = ManualClock()
    check, model = check_of(clock), Model(clock.wall_us)
    for gap_ms, asked in schedule:
        clock.advance(gap_ms * MS_US)
        request = model.settled(asked)
        if check(request) != model.fits(request, clock.wall_us):
            return False
    return True


@given(steps)
def test_a_limiter_in_memory_decides_as_the_laws_do(schedule: list[Step]) -> None:
    """Whatever is checked, and when."""
    assert agree(in_memory, schedule)


@given(st.lists(st.tuples(st.sampled_from((0, 1, 60)), requests), min_size=1, max_size=8))
def test_a_limiter_that_waits_decides_as_the_laws_do(schedule: list[Step]) -> None:
    """The same, by the way of several checks."""
    assert agree(deferred, schedule)


@pytest.mark.parametrize("planted", [ForgetsLooks, SharesKeys, MixesAlgorithms])
def test_the_model_finds_what_is_planted(planted: type[RateLimitingCacheAdapter]) -> None:
    """Each defect changes an answer of a short schedule."""

    def check_of(clock: ManualClock) -> Callable[[RateLimitRequest], bool]:
        limiter = planted(clock=clock)

        def check(each: RateLimitRequest) -> bool:
            result = limiter.check_now(each.key, each.limit, each.window_ms, algorithm=each.algorithm, hits=each.hits)
            assert result is not None
            return result.allowed

        return check

    look, hit = RateLimitRequest("a", 1, 60, hits=0), RateLimitRequest("a", 1, 60)
    schedule = [(0, look), (0, hit), (0, RateLimitRequest("b", 1, 60)), (60, hit), (1, hit), (1, hit)]
    assert agree(in_memory, schedule)
    assert not agree(check_of, schedule)


@given(steps)
@example([(0, RateLimitRequest("a", 1, 60, "sliding_window")), (60, RateLimitRequest("a", 1, 60, "sliding_window"))])
def test_the_classes_that_stand_alone_decide_as_the_laws_do(schedule: list[Step]) -> None:
    """One class for each algorithm, one object for each limit."""
    classes: dict[str, Any] = {
        "fixed_window": FixedWindowRateLimit,
        "sliding_window": SlidingWindowRateLimit,
    }

    def check_of(clock: ManualClock) -> Callable[[RateLimitRequest], bool]:
        made: dict[tuple[str, int], Any] = {}

        def check(each: RateLimitRequest) -> bool:
            at = (each.algorithm, each.window_ms)
            if at not in made and each.algorithm == "token_bucket":
                made[at] = TokenBucketRateLimit(each.limit, each.limit * 1_000 / each.window_ms, clock=clock)
            elif at not in made:
                made[at] = classes[each.algorithm](each.limit, each.window_ms, clock=clock)
            return bool(made[at].check(each.key, hits=each.hits).allowed)

        return check

    assert agree(check_of, schedule)


@given(st.lists(requests, min_size=1, max_size=6), st.lists(requests, min_size=1, max_size=4))
def test_all_or_nothing_is_all_or_nothing(before: list[RateLimitRequest], together: list[RateLimitRequest]) -> None:
    """If it passes, each in turn would have been allowed; if not, nothing is counted."""
    clock = ManualClock()
    whole, one_by_one = (RateLimitingCacheAdapter(clock=clock) for _ in range(2))
    model = Model(clock.wall_us)
    before, together = [model.settled(each) for each in before], [model.settled(each) for each in together]
    looks = [RateLimitRequest(each.key, each.limit, each.window_ms, each.algorithm, hits=0) for each in together]

    async def main() -> None:
        for limiter in (whole, one_by_one):
            await limiter.check_multiple_rate_limits(before)
        left = await whole.check_multiple_rate_limits(looks)
        passed = all(each.allowed for each in await whole.check_multiple_rate_limits(together, all_or_nothing=True))
        # Looks ask of what was there before; they decide nothing about hits beside them.
        counted = [each for each in together if each.hits]
        in_turn = await one_by_one.check_multiple_rate_limits(counted)
        if not passed:
            assert await whole.check_multiple_rate_limits(looks) == left
        else:
            assert all(each.allowed for each in in_turn)

    asyncio.run(main())
