"""The library's limiter: `RateLimitingCacheAdapter`.

    from ratelimit_service.adapter import RateLimitingCacheAdapter

    async with RateLimitingCacheAdapter.in_memory() as limiter:
        result = await limiter.check_rate_limit("user:42", 100, 60_000)
        if not result.allowed:
            print(f"again in {result.retry_after_ms} ms")

Counts are kept by the same stores and laws as the service's: in this process, or in Redis, leased or exact.
Most checks are decided by what is in hand: those never leave the caller's turn of the loop, and make no future.
The value cache that may go with a limiter never holds counts.

Not thread-safe: a limiter belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from ratelimit_service.cache.counting import Sample
from ratelimit_service.cache.profiles import DEFAULT_SECRETS
from ratelimit_service.cache.service import CacheService
from ratelimit_service.cache.warming import DEFAULT_PER_SECOND, Progress, WarmingReport
from ratelimit_service.clock import Clock as MachineClock
from ratelimit_service.library.checks import Checking, Checks
from ratelimit_service.library.config import DefaultLimit, RateLimitConfig
from ratelimit_service.library.crowds import Crowds
from ratelimit_service.library.laws import counted
from ratelimit_service.library.measures import (
    RateLimitingStats,
    algorithm_stats,
    hit_rates,
    percentiles,
    samples_of,
)
from ratelimit_service.library.optimizer import RateLimitingPerformanceOptimizer
from ratelimit_service.library.profiles import config_of
from ratelimit_service.library.quotas import MemoryQuota, quota_of
from ratelimit_service.library.results import (
    NEVER_MS,
    InvalidRateLimit,
    RateLimitRequest,
    RateLimitResult,
    RateLimitStoreLost,
)
from ratelimit_service.library.several import Several
from ratelimit_service.library.standing import RateLimitingHealth, health_of
from ratelimit_service.library.waiting import Answers
from ratelimit_service.library.warming import KeyToWarm, RateLimitingCacheWarmer, charges_to_warm, warm_in_batches
from ratelimit_service.library.windows import FixedWindowRateLimit, SlidingWindowRateLimit, TokenBucketRateLimit
from ratelimit_service.policy.profile_model import WarmingMode
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.memory.bounds import Clock
from ratelimit_service.quota.store import Charge, Outcome, Store
from ratelimit_service.redis_server.address import parse_store_url

__all__ = [
    "NEVER_MS",
    "DefaultLimit",
    "FixedWindowRateLimit",
    "InvalidRateLimit",
    "RateLimitConfig",
    "RateLimitRequest",
    "RateLimitResult",
    "RateLimitStoreLost",
    "RateLimitingCacheAdapter",
    "RateLimitingCacheWarmer",
    "RateLimitingHealth",
    "RateLimitingPerformanceOptimizer",
    "RateLimitingStats",
    "SlidingWindowRateLimit",
    "TokenBucketRateLimit",
]

_US_PER_MS: Final = 1_000
_SHOWN_KEYS: Final = 10


class RateLimitingCacheAdapter:
    """Limits how often keys may do something.

    Args:
        cache: A value cache to go with it: its settings say where Redis is unless `config` or `store` does, it is
            warmed, measured and closed with the limiter.
        store: Where hits are counted; None: as `config` says.
        config: How; None: in this process's memory, or in the cache's Redis.
        logger: Is told when a failure mode decides.
        clock: Where time comes from.
    """

    def __init__(
        self,
        *,
        cache: CacheService[Any] | None = None,
        store: Store | None = None,
        config: RateLimitConfig | None = None,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
    ) -> None:
        config = config or RateLimitConfig()
        if cache is None and config.cache is not None:
            cache = CacheService(config.cache)
        if cache is not None and config.redis is None:
            config = msgspec.structs.replace(config, redis=cache.settings.redis)
        self.config = config
        self.cache = cache
        clock = clock or MachineClock()
        self._read = clock.read
        self._quota = quota_of(config, clock, store)
        self._store = self._quota.store
        self._checks = Checks(config, self._quota, clock, logger or logging.getLogger("tidegate.library"))
        self._decide = self._checks.decide
        self._book = self._checks.book
        self._deadline_us = config.deadline_ms * _US_PER_MS
        self._several = Several(self._checks, self._store, self._deadline_us)
        leased = self._quota.leased
        self._crowds = None if leased is None else Crowds(self._checks, self._store, leased, self._deadline_us)
        self._warming: asyncio.Task[None] | None = None
        self._is_open = False
        self._is_closed = False

    @property
    def needs_no_loop(self) -> bool:
        """Whether nothing of it ever waits or runs in the background: counts in memory, without cache or warming."""
        is_plain = self.cache is None and self.config.warming is WarmingMode.NONE
        return is_plain and isinstance(self._quota, MemoryQuota)

    # Made, started, closed.

    @classmethod
    def in_memory(cls, config: RateLimitConfig | None = None) -> Self:
        """Count in this process alone. Works without `start` too, which begins to clean up in the background."""
        return cls(config=msgspec.structs.replace(config or RateLimitConfig(), redis=None))

    @classmethod
    def from_url(cls, url: str, config: RateLimitConfig | None = None) -> Self:
        """Share counts in a Redis: `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`.

        Raises:
            InvalidStoreAddress: With all that is wrong.
        """
        return cls(config=msgspec.structs.replace(config or RateLimitConfig(), redis=parse_store_url(url)))

    @classmethod
    def from_profile(
        cls, profile: str | Path, config: RateLimitConfig | None = None, *, secrets: Path = DEFAULT_SECRETS
    ) -> Self:
        """Take store, leases, bounds, warming and value cache from a profile: one that ships, or a `CacheProfile` file.

        What the profile does not say is as in `config`.

        Raises:
            InvalidProfile: There is none, or it is not valid; with every problem.
        """
        config = config_of(profile, config or RateLimitConfig(), secrets)
        cache: CacheService[Any] = CacheService.from_profile(profile, secrets=secrets)
        return cls(cache=cache, config=config)

    async def start(self) -> Self:
        """Open the store and the cache; never fails for want of a server. A second time does nothing."""
        if not self._is_open:
            self._is_open = True
            await self._store.start()
            if self.cache is not None:
                await self.cache.start()
            if self.config.warming is not WarmingMode.NONE:
                warmer = RateLimitingCacheWarmer(self)
                adaptive = self.config.warming is WarmingMode.ADAPTIVE
                self._warming = asyncio.get_running_loop().create_task(warmer.run(adaptive=adaptive))
        return self

    async def close(self) -> None:
        """Return leases, end background work, close store and cache. A second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait((self._warming,))
        await self._store.close()
        if self.cache is not None:
            await self.cache.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Checks.

    async def check_rate_limit(
        self,
        key: str,
        limit: int,
        window_ms: int,
        *,
        algorithm: str = "sliding_window",
        hits: int = 1,
        burst: int | None = None,
    ) -> RateLimitResult:
        """Count hits of a key if they fit its limit.

        Args:
            key: Who is limited. Keys that differ never share a count.
            limit: Hits per window, 0 (denies all; not for token buckets) to 4294967295.
            window_ms: Length of the window, milliseconds, up to 366 days.
            algorithm: `fixed_window`: at most `limit` in each window aligned to the epoch; `sliding_window`: in any
                interval of that length; `token_bucket`: refilled by `limit` per window, holds `burst`.
            hits: How many; 0 only looks.
            burst: What a token bucket holds; None: as many as `limit`.

        Raises:
            InvalidRateLimit: With every argument that is wrong.
            RateLimitStoreLost: The store is away, and `raise_when_degraded` is set. Never raised otherwise: the
                failure mode decides, and the result says `degraded`.
        """
        decided = self._decide(key, limit, window_ms, algorithm, hits, burst)
        if isinstance(decided, RateLimitResult):
            return decided
        return await self._wait(key, decided)

    def check_now(
        self,
        key: str,
        limit: int,
        window_ms: int,
        *,
        algorithm: str = "sliding_window",
        hits: int = 1,
        burst: int | None = None,
    ) -> RateLimitResult | None:
        """`check_rate_limit` for callers that cannot wait: None, and nothing counted, where the store has to be asked.

        In memory it always answers.
        """
        decided = self._decide(key, limit, window_ms, algorithm, hits, burst)
        return decided if isinstance(decided, RateLimitResult) else None

    async def check_default(self, key: str, *, hits: int = 1) -> RateLimitResult:
        """`check_rate_limit` by the limit of the configuration.

        Raises:
            InvalidRateLimit: It has none, or an argument is wrong.
        """
        default = self.config.default
        if default is None:
            raise InvalidRateLimit({"default": "the configuration has no default limit"})
        return await self.check_rate_limit(
            key, default.limit, default.window_ms, algorithm=default.algorithm, hits=hits, burst=default.burst
        )

    async def _wait(self, key: str, checking: Checking) -> RateLimitResult:
        """Ask the store, or wait with others who did."""
        law, charges, asked = checking
        if self._crowds is not None and self._crowds.takes(charges[0]):
            return await self._crowds.join(key, checking)
        answers: Answers[Sequence[Outcome]] = Answers(1)
        self._store.charge_later(charges, asked.boot_us + self._deadline_us, functools.partial(answers.take_in, 0))
        ((outcome,),) = await answers.all()
        now = self._read()
        self._checks.durations.observe(now.boot_us - asked.boot_us)
        self._checks.worth.note(key, 1)
        return self._checks.result(law, outcome, now)

    async def check_multiple_rate_limits(
        self, requests: Sequence[RateLimitRequest], *, all_or_nothing: bool = False
    ) -> list[RateLimitResult]:
        """Check several, with one call of the store per node at the most.

        Args:
            requests: In the order of the results.
            all_or_nothing: Count no hit unless all fit. A result then says whether its own hits would fit: the whole
                passes if every one is `allowed`.

        Raises:
            InvalidRateLimit: With every argument that is wrong, as `requests[2].limit`; nothing is counted.
            RateLimitStoreLost: As for `check_rate_limit`.
        """
        return await self._several.check(requests, all_or_nothing=all_or_nothing)

    # Administration.

    async def reset_rate_limit(self, key: str) -> bool:
        """Forget a key with all its algorithms and windows; whether anything was counted.

        Other replicas no longer deny it after 1 s at the most. What they hold of it in leases they may still spend,
        which is gone when it is spent, or idle for two horizons (`horizon_ms`).

        Raises:
            InvalidRateLimit: The key is no text.
        """
        name = counted(key)
        identities = self._book.identities()
        answers: Answers[bool | None] = Answers(len(identities))
        for index, identity in enumerate(identities):
            self._store.reset(identity, name, functools.partial(answers.take_in, index))
        return any(await answers.all())

    async def warmup_rate_limit_keys(
        self,
        keys: Iterable[KeyToWarm],
        *,
        progress: Progress | None = None,
        per_second: int = DEFAULT_PER_SECOND,
    ) -> WarmingReport:
        """Have leases of keys in hand, and their values in the cache's memory, before they are asked for.

        A lease that nobody uses goes back after two horizons (`horizon_ms`), so warm shortly before the traffic.

        Args:
            keys: Texts, which are warmed for the default limit, else for every limit in force; or requests, whose
                `hits` are taken ahead.
            progress: Told how far it has come.
            per_second: Pace. It ends early at the warning level of memory.

        Returns:
            How many keys were warmed, skipped (in hand, exact, or counted in this process) and failed.

        Raises:
            InvalidRateLimit: With every argument that is wrong.
        """
        now = self._read()
        wanted = charges_to_warm(keys, self.config.default, self._book, now.boot_us)
        return await warm_in_batches(
            wanted, self._warm_one, per_second=per_second, progress=progress, is_pressed=self._checks.is_pressed
        )

    async def _warm_one(self, key: str, charges: Sequence[Charge]) -> bool | None:
        taken = [await self._quota.take_ahead(charge) for charge in charges]
        if self.cache is not None and not self.cache.is_held(key):
            report = await self.cache.warm((key,))
            taken.append(True if report.warmed else None)
        if False in taken:
            return False
        return True if True in taken else None

    # Telling.

    def stats(self) -> RateLimitingStats:
        """What was done since it was built."""
        by_algorithm = {name: algorithm_stats(tally) for name, tally in self._book.tallies().items()}
        report = self._quota.report()
        top = self._checks.worth.top(_SHOWN_KEYS)
        return RateLimitingStats(
            checks=sum(each.checks for each in by_algorithm.values()),
            allowed=sum(each.allowed for each in by_algorithm.values()),
            denied=sum(each.denied for each in by_algorithm.values()),
            degraded=sum(each.degraded for each in by_algorithm.values()),
            by_algorithm=by_algorithm,
            hit_rates=hit_rates(report, None if self.cache is None else self.cache.stats()),
            round_trips=report.round_trips,
            batch_size=report.batch_size,
            durations=percentiles(self._checks.durations),
            top_keys=tuple((key, self._checks.worth.of(key)) for key in top),
            keys=report.keys,
            bytes=report.bytes,
            limits=len(self._book.identities()),
        )

    def health(self) -> RateLimitingHealth:
        """How it is now."""
        bound = max((self._store.bound(name) for name in self._book.names()), default=0)
        return health_of(
            self._quota.report(),
            None if self.cache is None else self.cache.health(),
            bound_hits=None if bound >= MAX_HITS else bound,
            fill_percent=self._quota.fill_percent(),
            pressure=self._checks.pressure(),
            is_open=not self._is_closed,
        )

    def metrics(self) -> tuple[Sample, ...]:
        """The limiter's numbers and the value cache's, as the Prometheus endpoint shows them."""
        own = tuple(samples_of(self.stats(), self.config.namespace))
        return own if self.cache is None else (*own, *self.cache.metrics())

    async def get_rate_limiting_stats(self) -> RateLimitingStats:
        """See `stats`."""
        return self.stats()

    async def get_health(self) -> RateLimitingHealth:
        """See `health`."""
        return self.health()

    async def get_metrics(self) -> tuple[Sample, ...]:
        """See `metrics`."""
        return self.metrics()

    def busiest(self, count: int) -> list[str]:
        """The keys that were checked most, by samples, the first first; counts of the past fade with each call."""
        top = self._checks.worth.top(count)
        self._checks.worth.fade()
        return top

    def checks_of(self, key: str) -> int:
        """How often a key was checked, by samples; 0 where it is none of the busiest."""
        return self._checks.worth.of(key)
