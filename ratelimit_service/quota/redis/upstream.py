"""Count over Redis as envoyproxy/ratelimit does: `--compat envoyproxy` with a Redis store (DECISIONS 9).

Source: src/redis/fixed_cache_impl.go of that project. Keys, increments and expiry are its own, so that both may count
in one Redis while users move from one to the other. Requests that arrive while a pipeline is under way share the next
one. What cannot be counted is answered `degraded`, which the limiter makes the gRPC status UNKNOWN of.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import Instant, LimitSettings
from ratelimit_service.quota.memory.bounds import refused_outcome
from ratelimit_service.quota.redis.lane import Clock
from ratelimit_service.quota.redis.over_limit_cache import OverLimitCache
from ratelimit_service.quota.redis.upstream_admin import forget, list_counters, take_back
from ratelimit_service.quota.redis.upstream_counting import MOST_HITS, Counted, Servers, UpstreamFailed, count, look
from ratelimit_service.quota.store import Charge, Done, Outcome, Role, Source, Usage
from ratelimit_service.quota.upstream import upstream_key, upstream_outcome, upstream_window_us

__all__ = ["UpstreamRedisSettings", "UpstreamRedisStats", "UpstreamRedisStore"]

_SECOND_US: Final = 1_000_000
_BATCH_CHARGES: Final = 256
"""Charges of one pipeline: two commands each hold Redis for about 0.5 ms."""


class UpstreamRedisSettings(msgspec.Struct, frozen=True):
    """Settings of envoyproxy/ratelimit, with its defaults.

    Attributes:
        prefix: CACHE_KEY_PREFIX, before every key.
        expiry_jitter_s: EXPIRATION_JITTER_MAX_SECONDS; less than this is added to every expiry.
        local_cache_bytes: LOCAL_CACHE_SIZE_IN_BYTES, for keys that are over their limit; 0: none.
        stop_when_over: STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT: look first, and increment only the keys that cross
            their limit where one of the request does.
    """

    prefix: bytes = b""
    expiry_jitter_s: int = 300
    local_cache_bytes: int = 0
    stop_when_over: bool = False


class UpstreamRedisStats(msgspec.Struct, frozen=True):
    """Plain integers for metrics.

    Attributes:
        batches, batched_charges: Pipelines sent and charges in them, ever.
        failed: Requests that were answered UNKNOWN, ever.
        over_limit_with_local_cache: Hits that the local cache refused, ever.
        cached_keys, cached_bytes: What it holds.
        waiting: Requests that wait for the next pipeline.
    """

    batches: int
    batched_charges: int
    failed: int
    over_limit_with_local_cache: int
    cached_keys: int
    cached_bytes: int
    waiting: int


class _Waiting(msgspec.Struct):
    """A request whose answer has not been given."""

    charges: list[Counted]
    deadline_us: int
    done: Done | None


class UpstreamRedisStore:
    """A `Store` that counts like envoyproxy/ratelimit over Redis; it never answers at once.

    Args:
        clock: Wall and boot time.
        servers: Where keys are; started and closed by this store.
        settings: As envoyproxy/ratelimit's.
        chance: For the jitter of expiries.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        servers: Servers,
        settings: UpstreamRedisSettings = UpstreamRedisSettings(),  # noqa: B008 — frozen
        chance: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._servers = servers
        self._settings = settings
        self._chance = chance or random.Random()  # noqa: S311 — spreads expiries
        self._cache = OverLimitCache(settings.local_cache_bytes)
        self._limits: Mapping[bytes, LimitSettings] = {}
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches = self._batched = self._failed = self._refused_by_cache = 0

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome] | None:
        """None, unless the local cache knows the answer to every charge."""
        if not len(self._cache):
            return None
        outcomes = [self._from_cache(each, now) for each in self._counted(charges, now)]
        known = [outcome for outcome in outcomes if outcome is not None]
        if len(known) < len(charges):
            return None
        self._refused_by_cache += sum(charge.hits for charge in charges)
        return known

    def charge_later(self, charges: Sequence[Charge], deadline_us: int, done: Done) -> None:
        """Count in the next pipeline; a request that misses its deadline is answered without its counts."""
        now = self._clock.read()
        waiting = _Waiting(self._counted(charges, now), deadline_us, done)
        self._waiting.append(waiting)
        asyncio.get_running_loop().call_later(
            max(0, deadline_us - now.boot_us) / _SECOND_US, self._answer_late, waiting
        )
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send())

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Judge without counting."""
        counted = self._counted(charges, now)
        for each in counted:
            each.hits = None
        self._spawn(self._count_and_answer(counted, done))

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Take hits off the current windows' counts, never below 0."""
        counted = self._counted(charges, now)

        async def run() -> None:
            await take_back(self._servers, counted)
            self._answer(counted, done)

        self._spawn(run())

    def reset(self, identity: bytes, key: bytes, done: Callable[[bool | None], None]) -> None:
        """Forget a stem's counters in the current windows of all units."""
        now_us = self._clock.read().wall_us

        async def run() -> None:
            done(await forget(self._servers, self._settings.prefix, key, now_us))

        self._spawn(run())

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage] | None], None]) -> None:
        """List a domain's counters as keys and counts, in Redis's order; what their limits are is not in the keys."""

        async def run() -> None:
            done(await list_counters(self._servers, self._settings.prefix + domain.encode() + b"_", page))

        self._spawn(run())

    def bound(self, rule: str) -> int:
        """Hits beyond the limits: 0, every request is counted in one place."""
        return 0

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """Take the limits in force; only their failure modes matter. Counts stay, as upstream's do."""
        self._limits = limits

    async def start(self) -> None:
        """Begin to connect in the background."""
        for topology in self._servers.all():
            await topology.start()

    async def close(self) -> None:
        """Stop; requests that still wait are answered without their counts."""
        for waiting in self._waiting:
            self._answer_late(waiting)
        self._waiting.clear()
        tasks = [*self._tasks, *([self._sending] if self._sending is not None else [])]
        await asyncio.gather(*tasks)
        for topology in self._servers.all():
            await topology.close()

    def stats(self) -> UpstreamRedisStats:
        """Read the plain integers."""
        return UpstreamRedisStats(
            batches=self._batches,
            batched_charges=self._batched,
            failed=self._failed,
            over_limit_with_local_cache=self._refused_by_cache,
            cached_keys=len(self._cache),
            cached_bytes=self._cache.bytes_used,
            waiting=len(self._waiting),
        )

    def _counted(self, charges: Sequence[Charge], now: Instant) -> list[Counted]:
        counted = []
        for charge in charges:
            window_us = upstream_window_us(charge.limit)
            jitter_s = int(self._chance.random() * self._settings.expiry_jitter_s)
            counted.append(
                Counted(
                    charge=charge,
                    key=upstream_key(self._settings.prefix, charge.key, window_us, now.wall_us),
                    per_second=window_us == _SECOND_US,
                    expiry_s=max(1, window_us // _SECOND_US) + jitter_s,
                    hits=None if charge.role is Role.OBSERVE else min(charge.hits, MOST_HITS),
                    now_us=now.wall_us,
                )
            )
        return counted

    def _from_cache(self, each: Counted, now: Instant) -> Outcome | None:
        if each.hits is None or not self._cache.holds(each.key, now.boot_us):
            return None
        # Over by the cache's word, whatever the limit is now.
        limit = each.charge.limit
        outcome = upstream_outcome(limit, limit.requests, max(1, each.hits), each.now_us, Source.MEMORY)
        return msgspec.structs.replace(outcome, over=True, remaining=0)

    async def _send(self) -> None:
        """Send what waits, and what has come meanwhile, until nothing waits."""
        while self._waiting:
            batch: list[_Waiting] = []
            charges = 0
            while self._waiting and charges < _BATCH_CHARGES:
                waiting = self._waiting.pop(0)
                if waiting.done is not None:
                    batch.append(waiting)
                    charges += len(waiting.charges)
            await self._count_batch(batch)
            for waiting in batch:
                done, waiting.done = waiting.done, None
                if done is not None:
                    self._answer(waiting.charges, done)
        self._sending = None

    async def _count_batch(self, batch: Sequence[_Waiting]) -> None:
        now = self._clock.read()
        to_count: list[Counted] = []
        for waiting in batch:
            for each in waiting.charges:
                each.outcome = self._from_cache(each, now)
                if each.outcome is None:
                    to_count.append(each)
                else:
                    self._refused_by_cache += each.charge.hits
        if self._settings.stop_when_over and to_count:
            counts = dict(zip(map(id, to_count), await look(self._servers, to_count), strict=True))
            for waiting in batch:
                _spare(waiting.charges, counts)
        if to_count:
            self._batches += 1
            self._batched += len(to_count)
            await count(self._servers, to_count)
            for each in to_count:
                if isinstance(each.outcome, Outcome) and each.outcome.over and each.hits is not None:
                    self._cache.add(each.key, now.boot_us + upstream_window_us(each.charge.limit))

    async def _count_and_answer(self, charges: Sequence[Counted], done: Done) -> None:
        await count(self._servers, charges)
        self._answer(charges, done)

    def _answer(self, charges: Sequence[Counted], done: Done) -> None:
        """One charge that could not be counted spoils the request, as an error does there."""
        outcomes = [each.outcome for each in charges if isinstance(each.outcome, Outcome)]
        if len(outcomes) == len(charges):
            done(outcomes)
        else:
            self._fail(charges, done)

    def _answer_late(self, waiting: _Waiting) -> None:
        done, waiting.done = waiting.done, None
        if done is not None:
            self._fail(waiting.charges, done)

    def _fail(self, charges: Sequence[Counted], done: Done) -> None:
        self._failed += 1
        outcomes = []
        for each in charges:
            settings = self._limits.get(each.charge.identity)
            outcomes.append(refused_outcome(each.charge, settings.failure if settings else each.charge.failure))
        done(outcomes)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _spare(charges: Sequence[Counted], counts: Mapping[int, int | UpstreamFailed]) -> None:
    """Increment only the keys that cross their limit, where one does or the local cache knows one that has."""
    crossing = {id(each) for each in charges if _crosses(each, counts.get(id(each)))}
    if crossing or any(each.outcome is not None for each in charges):
        for each in charges:
            if id(each) not in crossing and each.hits is not None:
                each.hits = 0


def _crosses(each: Counted, before: int | UpstreamFailed | None) -> bool:
    return isinstance(before, int) and each.would_be_over(before)
