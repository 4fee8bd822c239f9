"""Checks of one key that wait for its lease together.

The first check that finds no hits in hand asks the store; those that come meanwhile do not. They form a *crowd*: one
order is under way for all of them, one deadline is kept for all of them, and what comes back is spent in the order of
arrival, each check as if it had just come. Whoever waits is a tuple and a future.

The deadline counts from when the store is asked, after the turn of the loop in which the first check came: what a
program itself does in one turn, thousands of checks perhaps, is no delay of the store's.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.library.checks import Checking, Checks
from ratelimit_service.library.quotas import LeasedKeys
from ratelimit_service.library.results import RateLimitResult, RateLimitStoreLost
from ratelimit_service.quota.store import Charge, Outcome, Store

__all__ = ["Crowds"]

Waiter = tuple[Checking, "asyncio.Future[RateLimitResult]"]


class Crowd:
    """Those that wait for one key.

    Attributes:
        key: As the program calls it.
        at: Limit and key, as the store knows them.
        waiters: In the order of arrival; it is the first for whom the store is asked.
        since_us: Boot time at which it was asked first.
    """

    __slots__ = ("at", "key", "since_us", "waiters")

    def __init__(self, key: str, at: tuple[bytes, bytes]) -> None:
        self.key = key
        self.at = at
        self.waiters: deque[Waiter] = deque()
        self.since_us = 0


class Crowds:
    """All crowds of one limiter. Belongs to one event loop.

    Args:
        checks: Says what answers mean. Its `crowded` is told of every key that has a crowd, so that nobody passes one.
        store: Where hits are counted.
        leased: What it takes ahead.
        deadline_us: How long the store has to answer.
    """

    def __init__(self, checks: Checks, store: Store, leased: LeasedKeys, deadline_us: int) -> None:
        self._checks = checks
        self._store = store
        self._leased = leased
        self._deadline_us = deadline_us
        self._crowds: dict[tuple[bytes, bytes], Crowd] = {}
        checks.crowded = self._crowds.keys()
        self._fresh: list[Crowd] = []

    def takes(self, charge: Charge) -> bool:
        """Whether checks of a key wait together: of a leased one, not of one that is asked for check by check."""
        return (charge.identity, charge.key) in self._crowds or self._leased.holds(charge)

    def join(self, key: str, checking: Checking) -> asyncio.Future[RateLimitResult]:
        """Wait with the others of a key, or begin its crowd; whoever leaves before the answer is not counted.

        The future may raise `RateLimitStoreLost`, as `Checks.result` does.
        """
        loop = asyncio.get_running_loop()
        (charge,) = checking[1]
        at = (charge.identity, charge.key)
        crowd = self._crowds.get(at)
        if crowd is None:
            crowd = self._crowds[at] = Crowd(key, at)
            if not self._fresh:
                loop.call_soon(self._ask_for_fresh)
            self._fresh.append(crowd)
        told: asyncio.Future[RateLimitResult] = loop.create_future()
        crowd.waiters.append((checking, told))
        return told

    def _ask_for_fresh(self) -> None:
        """Ask for the crowds that came up in the turn before."""
        fresh, self._fresh = self._fresh, []
        now_us = self._checks.read().boot_us
        for crowd in fresh:
            crowd.since_us = now_us
            self._ask(crowd)

    def _ask(self, crowd: Crowd) -> None:
        """Ask for the first that is still there, and let the store know what all of them want."""
        waiters = crowd.waiters
        while waiters and waiters[0][1].done():
            waiters.popleft()
        if not waiters:
            del self._crowds[crowd.at]
            return
        charges = waiters[0][0][1]
        behind = sum(waiting[1][0].hits for waiting, _ in waiters) - charges[0].hits
        withdraw = self._leased.expect(charges[0], behind)
        self._store.charge_later(
            charges, self._due_us(crowd, waiters[0]), functools.partial(self._answered, crowd, withdraw)
        )

    def _due_us(self, crowd: Crowd, waiter: Waiter) -> int:
        asked: Instant = waiter[0][2]
        return max(asked.boot_us, crowd.since_us) + self._deadline_us

    def _answered(self, crowd: Crowd, withdraw: Callable[[], None], outcomes: Sequence[Outcome]) -> None:
        """The first has its answer; the others go on by what is known and in hand now."""
        withdraw()
        now = self._checks.read()
        answered = len(crowd.waiters)
        (outcome,) = outcomes
        self._tell(crowd.waiters.popleft(), outcome, now)
        if outcome.degraded:
            self._give_up(crowd, now)
        self._serve(crowd, now)
        self._checks.worth.note(crowd.key, answered - len(crowd.waiters))
        self._ask(crowd)

    def _give_up(self, crowd: Crowd, now: Instant) -> None:
        """Those who have waited as long as the first are decided by the failure mode, as it was."""
        waiters = crowd.waiters
        while waiters and self._due_us(crowd, waiters[0]) <= now.boot_us:
            waiter = waiters.popleft()
            (outcome,) = self._leased.decide_without(waiter[0][1], now)
            self._tell(waiter, outcome, now)

    def _serve(self, crowd: Crowd, now: Instant) -> None:
        """Decide for one after the other, until one has to ask again."""
        waiters, charge = crowd.waiters, self._store.charge
        while waiters:
            (_, charges, _), told = waiters[0]
            if not told.done():
                outcomes = charge(charges, now)
                if outcomes is None:
                    return
                self._tell(waiters[0], outcomes[0], now)
            waiters.popleft()

    def _tell(self, waiter: Waiter, outcome: Outcome, now: Instant) -> None:
        (law, _, asked), told = waiter
        if told.done():
            return
        self._checks.durations.observe(now.boot_us - asked.boot_us)
        try:
            told.set_result(self._checks.result(law, outcome, now))
        except RateLimitStoreLost as lost:
            told.set_exception(lost)
