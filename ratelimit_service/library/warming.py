"""Take leases ahead of the traffic: of named keys, or of those that were checked most.

A lease that nobody spends goes back after two horizons, so what is warmed is warm for that long: warming pays for keys
that are about to be asked for, and is paced so that it never stands in the way of those that are.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

from ratelimit_service.algorithms.limit import Limit
from ratelimit_service.cache.warming import DEFAULT_PER_SECOND, Progress, WarmingReport, adapted
from ratelimit_service.library.config import DefaultLimit, RateLimitConfig
from ratelimit_service.library.laws import Law, LawBook, counted, problems_of
from ratelimit_service.library.results import InvalidRateLimit, RateLimitRequest
from ratelimit_service.quota.store import Charge

__all__ = ["PRIORITIES", "KeyToWarm", "RateLimitingCacheWarmer", "charges_to_warm", "warm_in_batches"]

KeyToWarm = str | RateLimitRequest
"""A key, for the limits that are known; or with its limit."""

PRIORITIES: Final = {"high": 10, "medium": 50, "low": 100}
"""Percent of `RateLimitConfig.top_keys` that are warmed, the busiest first."""

WARM_EVERY_S: Final = 1.0
_BATCH_S: Final = 0.02
_PART: Final = 64
"""A key without a number of its own is warmed with this part of its limit."""

KeyCharges = tuple[str, tuple[Charge, ...]]


class Warmed(Protocol):
    """What is warmed: `RateLimitingCacheAdapter`.

    Attributes:
        config: How it counts.
    """

    config: RateLimitConfig

    def busiest(self, count: int) -> list[str]:
        """The keys that were checked most."""

    def checks_of(self, key: str) -> int:
        """How often a key was checked."""

    async def warmup_rate_limit_keys(
        self, keys: Iterable[KeyToWarm], *, progress: Progress | None = None, per_second: int = DEFAULT_PER_SECOND
    ) -> WarmingReport:
        """Warm keys."""


class RateLimitingCacheWarmer:
    """Warms the busiest keys of one limiter.

    Args:
        limiter: Which.
    """

    def __init__(self, limiter: Warmed) -> None:
        self._limiter = limiter
        self._running: asyncio.Task[None] | None = None

    def identify_high_traffic_keys(self, n: int) -> list[str]:
        """The up to `n` keys that were checked most of late, the first first. The past fades with each call."""
        return self._limiter.busiest(n)

    async def warmup_high_traffic_keys(
        self, priority: str = "high", *, progress: Progress | None = None, per_second: int = DEFAULT_PER_SECOND
    ) -> WarmingReport:
        """Warm the busiest keys: `high` a tenth of those remembered, `medium` half of them, `low` all.

        Raises:
            InvalidRateLimit: There is no such priority.
        """
        percent = PRIORITIES.get(priority)
        if percent is None:
            raise InvalidRateLimit({"priority": f"one of {', '.join(PRIORITIES)} is wanted, not {priority!r:.60}"})
        keys = self.identify_high_traffic_keys(-(-self._limiter.config.top_keys * percent // 100))
        return await self._limiter.warmup_rate_limit_keys(keys, progress=progress, per_second=per_second)

    async def run(self, *, every_s: float = WARM_EVERY_S, adaptive: bool = False) -> None:
        """Warm again and again; adaptive: faster while what is warmed is asked for, slower where not."""
        per_second = DEFAULT_PER_SECOND
        most = self._limiter.config.top_keys
        while True:
            await asyncio.sleep(every_s)
            keys = self.identify_high_traffic_keys(most)
            before = {key: self._limiter.checks_of(key) for key in keys}
            report = await self._limiter.warmup_rate_limit_keys(keys, per_second=per_second)
            if adaptive and report.warmed:
                await asyncio.sleep(every_s)
                used = sum(self._limiter.checks_of(key) > checks for key, checks in before.items())
                per_second = adapted(per_second, min(used, report.warmed), report.warmed)

    def start(self, *, every_s: float = WARM_EVERY_S, adaptive: bool = False) -> None:
        """Begin `run` in the background; does nothing where it runs already."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self.run(every_s=every_s, adaptive=adaptive))

    async def stop(self) -> None:
        """End what `start` began."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait((running,))


def charges_to_warm(
    keys: Iterable[KeyToWarm], default: DefaultLimit | None, book: LawBook, boot_us: int
) -> list[KeyCharges]:
    """What to take for each key; a key that is named twice is taken for once.

    Raises:
        InvalidRateLimit: With every argument that is wrong.
    """
    problems: dict[str, str] = {}
    wanted: dict[KeyToWarm, None] = dict.fromkeys(keys)
    for index, key in enumerate(wanted):
        asked = key if isinstance(key, RateLimitRequest) else RateLimitRequest(key, 1, 1)
        wrong = problems_of(asked.key, asked.limit, asked.window_ms, asked.algorithm, asked.hits, asked.burst)
        problems |= {f"keys[{index}].{argument}": problem for argument, problem in wrong.items()}
    if problems:
        raise InvalidRateLimit(problems)
    if default is None:
        laws = book.newest()
    else:
        laws = [book.law(default.limit, default.window_ms, default.algorithm, default.burst, boot_us)]
    return [_charges(key, laws, book, boot_us) for key in wanted]


def _charges(key: KeyToWarm, laws: Sequence[Law], book: LawBook, boot_us: int) -> KeyCharges:
    if isinstance(key, str):
        return key, tuple(Charge(law.identity, law.limit, counted(key), _part(law.limit)) for law in laws)
    law = book.law(key.limit, key.window_ms, key.algorithm, key.burst, boot_us)
    return key.key, (Charge(law.identity, law.limit, counted(key.key), max(1, key.hits)),)


def _part(limit: Limit) -> int:
    return max(1, limit.burst // _PART)


async def warm_in_batches(
    wanted: Sequence[KeyCharges],
    warm_one: Callable[[str, Sequence[Charge]], Awaitable[bool | None]],
    *,
    per_second: int,
    progress: Progress | None,
    is_pressed: Callable[[], bool],
) -> WarmingReport:
    """Warm keys in their order, so many per second, until room is short.

    Raises:
        InvalidRateLimit: `per_second` is less than 1.
    """
    if per_second < 1:
        raise InvalidRateLimit({"per_second": f"at least one key per second, not {per_second}"})
    batch = max(1, round(per_second * _BATCH_S))
    warmed = skipped = failed = 0
    for start in range(0, len(wanted), batch):
        if is_pressed():
            left = len(wanted) - start
            report = WarmingReport(warmed=warmed, skipped=skipped + left, failed=failed, stopped=True)
            await _tell(progress, report)
            return report
        if start:
            await asyncio.sleep(batch / per_second)
        outcomes = await asyncio.gather(*(warm_one(key, charges) for key, charges in wanted[start : start + batch]))
        warmed += outcomes.count(True)
        skipped += outcomes.count(None)
        failed += outcomes.count(False)
        await _tell(progress, WarmingReport(warmed=warmed, skipped=skipped, failed=failed))
    return WarmingReport(warmed=warmed, skipped=skipped, failed=failed)


async def _tell(progress: Progress | None, report: WarmingReport) -> None:
    if progress is not None:
        told = progress(report)
        if inspect.isawaitable(told):
            await told
