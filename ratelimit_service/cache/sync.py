"""The cache for programs without asyncio: the same methods, blocking, from any thread.

A thread of its own runs the event loop that the cache belongs to. Loaders run in threads, so they may block.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, ParamSpec, Self, TypeVar, cast

from ratelimit_service.cache.coherence import Invalidation, InvalidationMetadata
from ratelimit_service.cache.counting import CacheStats, Sample
from ratelimit_service.cache.decorator import Key, KeysOfCalls
from ratelimit_service.cache.health import CacheHealth
from ratelimit_service.cache.loop_thread import LoopThread
from ratelimit_service.cache.profiles import DEFAULT_SECRETS, CacheSettings
from ratelimit_service.cache.serialisers import Codec
from ratelimit_service.cache.service import CacheService
from ratelimit_service.cache.warming import DEFAULT_PER_SECOND, KeyLoader, WarmingReport

__all__ = ["SyncCacheService"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class SyncCacheService(Generic[T]):
    """A `CacheService` behind blocking methods; arguments, results and errors are the same. Thread-safe.

    Args:
        settings: What it is built from.
        codec: How values become bytes.
        make: Makes the cache that is behind it; None: by the others.
    """

    def __init__(
        self,
        settings: CacheSettings | None = None,
        *,
        codec: Codec[T] | None = None,
        make: Callable[[], CacheService[T]] | None = None,
    ) -> None:
        self._thread = LoopThread("tidegate-cache")
        self._run = self._thread.run
        self._is_closed = False
        try:
            self._cache: CacheService[T] = self._run(
                _opened(make or functools.partial(CacheService, settings, codec=codec))
            )
        except BaseException:
            self._thread.stop()
            raise

    @classmethod
    def from_profile(
        cls, profile: str | Path, *, codec: Codec[T] | None = None, secrets: Path = DEFAULT_SECRETS
    ) -> Self:
        """Build it from a profile that ships, or a file that it follows; see `CacheService.from_profile`."""
        return cls(make=lambda: CacheService.from_profile(profile, codec=codec, secrets=secrets))

    def close(self) -> None:
        """End loads, links and the thread; a second time does nothing."""
        if not self._is_closed:
            self._is_closed = True
            try:
                self._run(self._cache.close())
            finally:
                self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, key: str, default: T | None = None) -> T | None:
        """See `CacheService.get`."""
        return self._run(self._cache.get(key, default))

    def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """See `CacheService.get_many`."""
        return self._run(self._cache.get_many(list(keys)))

    def get_or_load(
        self,
        key: str,
        loader: Callable[[], T | None],
        *,
        ttl_ms: int | None = None,
        tags: Sequence[str] = (),
        soft_timeout_ms: int | None = None,
        hard_timeout_ms: int | None = None,
    ) -> T | None:
        """See `CacheService.get_or_load`; the loader is an ordinary function and runs in a thread."""
        return self._run(
            self._cache.get_or_load(
                key,
                lambda: asyncio.to_thread(loader),
                ttl_ms=ttl_ms,
                tags=tags,
                soft_timeout_ms=soft_timeout_ms,
                hard_timeout_ms=hard_timeout_ms,
            )
        )

    def set(self, key: str, value: T, *, ttl_ms: int | None = None, tags: Sequence[str] = ()) -> None:
        """See `CacheService.set`."""
        self._run(self._cache.set(key, value, ttl_ms=ttl_ms, tags=tags))

    def set_many(self, values: Mapping[str, T], *, ttl_ms: int | None = None, tags: Sequence[str] = ()) -> None:
        """See `CacheService.set_many`."""
        self._run(self._cache.set_many(dict(values), ttl_ms=ttl_ms, tags=tags))

    def delete(self, key: str) -> bool:
        """See `CacheService.delete`."""
        return self._run(self._cache.delete(key))

    def invalidate(self, key: str, metadata: InvalidationMetadata | None = None) -> Invalidation:
        """See `CacheService.invalidate`."""
        return self._run(self._cache.invalidate(key, metadata))

    def invalidate_tag(self, tag: str) -> Invalidation:
        """See `CacheService.invalidate_tag`."""
        return self._run(self._cache.invalidate_tag(tag))

    def invalidate_prefix(self, prefix: str) -> Invalidation:
        """See `CacheService.invalidate_prefix`."""
        return self._run(self._cache.invalidate_prefix(prefix))

    def clear(self) -> Invalidation:
        """See `CacheService.clear`."""
        return self._run(self._cache.clear())

    def warm(
        self,
        keys: Iterable[str],
        loader: Callable[[str], T | None] | None = None,
        *,
        per_second: int = DEFAULT_PER_SECOND,
        progress: Callable[[WarmingReport], None] | None = None,
    ) -> WarmingReport:
        """See `CacheService.warm`; the loader is an ordinary function and runs in a thread."""
        load = None if loader is None else _in_thread(loader)
        return self._run(self._cache.warm(list(keys), load, per_second=per_second, progress=progress))

    def stats(self) -> CacheStats:
        """See `CacheService.stats`."""
        return self._thread.call(self._cache.stats)

    def health(self) -> CacheHealth:
        """See `CacheService.health`."""
        return self._thread.call(self._cache.health)

    def metrics(self) -> tuple[Sample, ...]:
        """See `CacheService.metrics`."""
        return self._thread.call(self._cache.metrics)

    def cached(
        self, *, key: Key | None = None, ttl_ms: int | None = None, tags: Sequence[str] = ()
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Cache what an ordinary function returns; see `decorator.cached`.

        Raises:
            TypeError: The function is async.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{function!r} is async; use ratelimit_service.cache.cached")
            keys = KeysOfCalls(function, key, tags)

            @functools.wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                value = self.get_or_load(
                    keys.key_for(*args, **kwargs),
                    cast("Callable[[], T]", functools.partial(function, *args, **kwargs)),
                    ttl_ms=ttl_ms,
                    tags=keys.tags_for(*args, **kwargs),
                )
                return cast("R", value)

            call.key_for = keys.key_for  # type: ignore[attr-defined]  # as with `decorator.cached`
            return call

        return decorate


def _in_thread(loader: Callable[[str], T | None]) -> KeyLoader:
    async def load(key: str) -> T | None:
        return await asyncio.to_thread(loader, key)

    return load


async def _opened(make: Callable[[], CacheService[T]]) -> CacheService[T]:
    return await make().start()
