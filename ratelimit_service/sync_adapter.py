"""The library's limiter for programs without asyncio: `SyncRateLimitingCacheAdapter`.

    from ratelimit_service.sync_adapter import SyncRateLimitingCacheAdapter

    with SyncRateLimitingCacheAdapter.in_memory() as limiter:
        if not limiter.check_rate_limit("user:42", 100, 60_000).allowed:
            ...

In memory a check is decided in the caller's thread, under a lock. Anything else happens on an event loop in a thread of
its own, where a check that is decided by what is in hand still costs a change of threads, some 50 µs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from ratelimit_service.adapter import (
    RateLimitConfig,
    RateLimitingCacheAdapter,
    RateLimitingHealth,
    RateLimitingStats,
    RateLimitRequest,
    RateLimitResult,
)
from ratelimit_service.cache.counting import Sample
from ratelimit_service.cache.loop_thread import LoopThread
from ratelimit_service.cache.profiles import DEFAULT_SECRETS
from ratelimit_service.cache.warming import DEFAULT_PER_SECOND, WarmingReport
from ratelimit_service.library.warming import KeyToWarm
from ratelimit_service.redis_server.address import parse_store_url

__all__ = ["SyncRateLimitingCacheAdapter"]

R = TypeVar("R")

_NO_PACE: Final = 1_000_000_000


class SyncRateLimitingCacheAdapter:
    """A `RateLimitingCacheAdapter` behind blocking methods; arguments, results and errors are the same. Thread-safe.

    Args:
        config: How it counts; None: in this process's memory.
        logger: Is told when a failure mode decides.
        make: Makes the limiter that is behind it, with a store or a cache of the program's own; None: by the others.
    """

    def __init__(
        self,
        config: RateLimitConfig | None = None,
        *,
        logger: logging.Logger | None = None,
        make: Callable[[], RateLimitingCacheAdapter] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread: LoopThread | None = None
        limiter = make() if make is not None else RateLimitingCacheAdapter(config=config, logger=logger)
        if not limiter.needs_no_loop:
            self._thread = LoopThread("tidegate-limiter")
            try:
                self._thread.run(limiter.start())
            except BaseException:
                self._thread.stop()
                raise
        self._limiter = limiter

    @classmethod
    def in_memory(cls, config: RateLimitConfig | None = None) -> Self:
        """Count in this process alone; see `RateLimitingCacheAdapter.in_memory`."""
        return cls(msgspec.structs.replace(config or RateLimitConfig(), redis=None))

    @classmethod
    def from_url(cls, url: str, config: RateLimitConfig | None = None) -> Self:
        """Share counts in a Redis; see `RateLimitingCacheAdapter.from_url`."""
        return cls(msgspec.structs.replace(config or RateLimitConfig(), redis=parse_store_url(url)))

    @classmethod
    def from_profile(
        cls, profile: str | Path, config: RateLimitConfig | None = None, *, secrets: Path = DEFAULT_SECRETS
    ) -> Self:
        """Take everything from a profile; see `RateLimitingCacheAdapter.from_profile`."""
        return cls(make=lambda: RateLimitingCacheAdapter.from_profile(profile, config, secrets=secrets))

    def close(self) -> None:
        """Return leases, end the thread; a second time does nothing."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            try:
                self._run(self._limiter.close())
            finally:
                if self._thread is not None:
                    self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Checks.

    def check_rate_limit(
        self,
        key: str,
        limit: int,
        window_ms: int,
        *,
        algorithm: str = "sliding_window",
        hits: int = 1,
        burst: int | None = None,
    ) -> RateLimitResult:
        """See `RateLimitingCacheAdapter.check_rate_limit`."""
        return self._run(
            self._limiter.check_rate_limit(key, limit, window_ms, algorithm=algorithm, hits=hits, burst=burst)
        )

    def check_default(self, key: str, *, hits: int = 1) -> RateLimitResult:
        """See `RateLimitingCacheAdapter.check_default`."""
        return self._run(self._limiter.check_default(key, hits=hits))

    def check_multiple_rate_limits(
        self, requests: Sequence[RateLimitRequest], *, all_or_nothing: bool = False
    ) -> list[RateLimitResult]:
        """See `RateLimitingCacheAdapter.check_multiple_rate_limits`."""
        return self._run(self._limiter.check_multiple_rate_limits(requests, all_or_nothing=all_or_nothing))

    # Administration.

    def reset_rate_limit(self, key: str) -> bool:
        """See `RateLimitingCacheAdapter.reset_rate_limit`."""
        return self._run(self._limiter.reset_rate_limit(key))

    def warmup_rate_limit_keys(
        self,
        keys: Iterable[KeyToWarm],
        *,
        progress: Callable[[WarmingReport], None] | None = None,
        per_second: int = DEFAULT_PER_SECOND,
    ) -> WarmingReport:
        """See `RateLimitingCacheAdapter.warmup_rate_limit_keys`; in memory every key is skipped at once."""
        warm = self._limiter.warmup_rate_limit_keys
        if self._thread is not None:
            return self._thread.run(warm(list(keys), progress=progress, per_second=per_second))
        with self._lock:
            # Nothing is taken, so there is nothing to pace.
            at_once = LoopThread("tidegate-limiter")
            try:
                return at_once.run(warm(list(keys), progress=progress, per_second=max(per_second, _NO_PACE)))
            finally:
                at_once.stop()

    # Telling.

    def get_rate_limiting_stats(self) -> RateLimitingStats:
        """See `RateLimitingCacheAdapter.get_rate_limiting_stats`."""
        return self._run(self._limiter.get_rate_limiting_stats())

    def get_health(self) -> RateLimitingHealth:
        """See `RateLimitingCacheAdapter.get_health`."""
        return self._run(self._limiter.get_health())

    def get_metrics(self) -> tuple[Sample, ...]:
        """See `RateLimitingCacheAdapter.get_metrics`."""
        return self._run(self._limiter.get_metrics())

    def metrics(self) -> tuple[Sample, ...]:
        """The same, as a Prometheus collector asks for it (`ratelimit_service.cache.prometheus`)."""
        return self.get_metrics()

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        """On the loop's thread; in memory here, where nothing waits."""
        if self._thread is not None:
            return self._thread.run(work)
        with self._lock:
            try:
                work.send(None)
            except StopIteration as ended:
                result: R = ended.value
                return result
        work.close()
        raise RuntimeError("a limiter in memory has waited")
