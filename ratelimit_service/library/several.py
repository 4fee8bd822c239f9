"""Several checks at once: each for itself, or all or nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.library.checks import Checks
from ratelimit_service.library.laws import Law, counted, problems_of
from ratelimit_service.library.results import InvalidRateLimit, RateLimitRequest, RateLimitResult, RateLimitStoreLost
from ratelimit_service.library.waiting import Answers
from ratelimit_service.quota.store import Charge, Outcome, Store

__all__ = ["Several"]


class Several:
    """Checks several for one limiter.

    Args:
        checks: Says what answers mean.
        store: Where hits are counted.
        deadline_us: How long it has to answer.
    """

    def __init__(self, checks: Checks, store: Store, deadline_us: int) -> None:
        self._checks = checks
        self._store = store
        self._deadline_us = deadline_us

    async def check(self, requests: Sequence[RateLimitRequest], *, all_or_nothing: bool) -> list[RateLimitResult]:
        """See `RateLimitingCacheAdapter.check_multiple_rate_limits`."""
        now = self._checks.read()
        laws = self._laws_of(requests, now)
        charges = [
            Charge(law.identity, law.limit, counted(request.key), request.hits)
            for law, request in zip(laws, requests, strict=True)
        ]
        if all_or_nothing:
            outcomes = await self._charge_together(charges, now)
        else:
            outcomes = await self._charge_each(charges, now)
        done = self._checks.read()
        if requests:
            self._checks.durations.observe(done.boot_us - now.boot_us, len(requests))
        return self._results(laws, outcomes, done)

    def _results(self, laws: Sequence[Law], outcomes: Sequence[Outcome], now: Instant) -> list[RateLimitResult]:
        """Tell all of them, even if the program wants to be told by an error."""
        results = []
        is_lost = False
        for law, outcome in zip(laws, outcomes, strict=True):
            try:
                results.append(self._checks.result(law, outcome, now))
            except RateLimitStoreLost as lost:
                is_lost = True
                results += lost.results
        if is_lost:
            raise RateLimitStoreLost(tuple(results))
        return results

    def _laws_of(self, requests: Sequence[RateLimitRequest], now: Instant) -> list[Law]:
        problems: dict[str, str] = {}
        for index, each in enumerate(requests):
            wrong = problems_of(each.key, each.limit, each.window_ms, each.algorithm, each.hits, each.burst)
            problems |= {f"requests[{index}].{argument}": problem for argument, problem in wrong.items()}
        if problems:
            raise InvalidRateLimit(problems)
        return [
            self._checks.book.law(each.limit, each.window_ms, each.algorithm, each.burst, now.boot_us)
            for each in requests
        ]

    async def _charge_together(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        """Charge all or none."""
        if not charges:
            return ()
        together = tuple(charges)
        outcomes = self._store.charge(together, now)
        if outcomes is not None:
            return outcomes
        answers: Answers[Sequence[Outcome]] = Answers(1)
        self._store.charge_later(together, now.boot_us + self._deadline_us, functools.partial(answers.take_in, 0))
        return (await answers.all())[0]

    async def _charge_each(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        """Charge each for itself; what has to wait waits together, and so leaves in one batch."""
        decided: list[Outcome | None] = []
        waiting: list[tuple[Charge]] = []
        for charge in charges:
            outcomes = self._store.charge((charge,), now)
            if outcomes is None:
                waiting.append((charge,))
                decided.append(None)
            else:
                decided.append(outcomes[0])
        answers: Answers[Sequence[Outcome]] = Answers(len(waiting))
        for index, alone in enumerate(waiting):
            take_in = functools.partial(answers.take_in, index)
            self._store.charge_later(alone, now.boot_us + self._deadline_us, take_in)
        later = iter(await answers.all())
        return [next(later)[0] if outcome is None else outcome for outcome in decided]
