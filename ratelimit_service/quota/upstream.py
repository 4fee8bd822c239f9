"""Count in memory as envoyproxy/ratelimit counts in Redis: `--compat envoyproxy` (DECISIONS 9).

Source: src/limiter/cache_key.go, src/limiter/base_limiter.go and src/redis/fixed_cache_impl.go of that project.
Every charge is counted alone by INCRBY and EXPIRE, denied ones too; keys are its concatenated text,
so two chains (`a`, `b_c`; `a_b`, `c`) and two units whose windows start together share a counter as they do there.
`Charge.key` is the stem (`upstream_stem`); identities do not matter but for `apply`'s failure modes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import CalendarUnit, Instant, Limit, LimitSettings
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.memory.bounds import MIB, CallSoon, Clock, refused_outcome
from ratelimit_service.quota.memory.sweeper import SLICE_KEYS, Sweeper
from ratelimit_service.quota.store import Charge, Done, Outcome, Role, Source, Usage

__all__ = [
    "UNIT_SECONDS",
    "UpstreamMemoryStore",
    "UpstreamStoreStats",
    "upstream_key",
    "upstream_outcome",
    "upstream_stem",
    "upstream_window_us",
]

UNIT_SECONDS: Final = (1, 60, 3_600, 86_400, 604_800, 2_592_000, 31_536_000)
"""Windows of SECOND, MINUTE, HOUR, DAY, WEEK, MONTH and YEAR (src/utils/utilities.go)."""

_CALENDAR_SECONDS: Final = dict(zip(CalendarUnit, UNIT_SECONDS[1:], strict=True))

PAGE_COUNTERS: Final = 100
"""Counters on a page of `usage`."""

_SECOND_US: Final = 1_000_000
_KEYS_PER_NEW_KEY: Final = 2
"""Old keys looked at for each new one: reclaiming keeps ahead of creation without the timer too."""
_ENTRY_BYTES: Final = 230
"""Table slot, count list, two integers and the key's object, measured on CPython 3.11; the key's text comes on top."""


def upstream_window_us(limit: Limit) -> int:
    """Upstream knows lengths only: a calendar window counts as the unit of its name."""
    if limit.calendar is None:
        return limit.window_us
    return _CALENDAR_SECONDS[limit.calendar.unit] * _SECOND_US


def upstream_stem(domain: bytes, entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Everything of a key between the prefix and the window's start: `domain_key_value_…_`."""
    return domain + b"_" + b"".join([key + b"_" + value + b"_" for key, value in entries])


def upstream_key(prefix: bytes, stem: bytes, window_us: int, now_us: int) -> bytes:
    """The counter's key at a wall time: prefix, stem, start of the window in seconds. The unit is not in it."""
    window_s = max(1, window_us // _SECOND_US)
    return b"%b%b%d" % (prefix, stem, now_us // _SECOND_US // window_s * window_s)


def upstream_outcome(limit: Limit, before: int, hits: int, now_us: int, source: Source) -> Outcome:
    """Over when the count after these hits exceeds the limit: at the limit, a check with 0 hits is OK."""
    window_us = upstream_window_us(limit)
    after = before + hits
    over = after > limit.requests
    return Outcome(
        over=over,
        remaining=0 if over else limit.requests - after,
        wait_us=window_us - now_us % window_us,
        before=before,
        source=source,
    )


class UpstreamStoreStats(msgspec.Struct, frozen=True):
    """Plain integers for metrics; each is `tidegate_store_<name>`.

    Attributes:
        keys, bytes: Counters held and an estimate of their memory, against `max_keys` and `max_bytes`.
        reclaimed: Expired counters dropped, ever.
        refused: Charges that the failure mode answered because the store was full, ever.
    """

    keys: int
    bytes: int
    max_keys: int
    max_bytes: int
    reclaimed: int
    refused: int


class UpstreamMemoryStore:
    """A `Store` that counts like envoyproxy/ratelimit, every charge for itself.

    A full store reclaims expired counters first; when none is, a new key is answered by its failure mode.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        prefix: bytes = b"",
        max_keys: int = 1_000_000,
        max_bytes: int = 200 * MIB,
        call_soon: CallSoon | None = None,
    ) -> None:
        self._clock = clock
        self._prefix = prefix
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._call_soon = call_soon
        self._counters: dict[bytes, list[int]] = {}
        """Key → [count, wall microsecond at which Redis would have dropped it]."""
        self._limits: Mapping[bytes, LimitSettings] = {}
        self._bytes = self._reclaimed = self._refused = 0
        self._queue: deque[bytes] = deque()
        """Every key once, the longest unexamined first."""
        self._sweeper = Sweeper(self._sweep_slice)

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        """Count every charge, fitting or not; OBSERVE charges are only judged."""
        return [self._charge_one(charge, now.wall_us) for charge in charges]

    def charge_later(self, charges: Sequence[Charge], deadline_us: int, done: Done) -> None:
        """Count on the loop's next turn, by the clock of then."""
        self._soon(lambda: done(self.charge(charges, self._clock.read())))

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Judge without counting; `done` is called before this returns."""
        done([self._judge(charge, self._count(charge, now.wall_us), charge.hits, now.wall_us) for charge in charges])

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Take hits off the current window's counts, never below 0; `done` is called before this returns."""
        for charge in charges:
            entry = self._live(charge, now.wall_us)
            if entry is not None:
                entry[0] = max(0, entry[0] - charge.hits)
        done([self._judge(charge, self._count(charge, now.wall_us), 0, now.wall_us) for charge in charges])

    def reset(self, identity: bytes, key: bytes, done: Callable[[bool], None]) -> None:
        """Forget a stem's counters in the current windows of all units."""
        now_us = self._clock.read().wall_us
        was_there = False
        for unit_s in UNIT_SECONDS:
            entry = self._counters.get(upstream_key(self._prefix, key, unit_s * _SECOND_US, now_us))
            if entry is not None and entry[1] > now_us:
                was_there = True
                # As good as gone: the next slice drops it.
                entry[:] = [0, 0]
        done(was_there)

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage]], None]) -> None:
        """List a domain's counters as keys and counts; what their limits are is not in the keys."""
        now_us = self._clock.read().wall_us
        head = self._prefix + domain.encode() + b"_"
        of_domain = (item for item in self._counters.items() if item[0].startswith(head))
        shown = itertools.islice(of_domain, page * PAGE_COUNTERS, (page + 1) * PAGE_COUNTERS)
        done(
            [
                Usage(identity=b"", key=key, used=used, remaining=0, wait_us=max(0, expires_us - now_us))
                for key, (used, expires_us) in shown
            ]
        )

    def bound(self, rule: str) -> int:
        """Hits beyond the limits: 0, one process counts exactly."""
        return 0

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """Take the limits in force; only their failure modes matter. Counts stay, as upstream's do."""
        self._limits = limits

    async def start(self) -> None:
        """Begin to reclaim in the background."""
        self._sweeper.start()

    async def close(self) -> None:
        """Stop reclaiming and drop every count."""
        self._sweeper.close()
        self._counters.clear()
        self._queue.clear()
        self._bytes = 0

    def stats(self) -> UpstreamStoreStats:
        """Read the plain integers."""
        return UpstreamStoreStats(
            keys=len(self._counters),
            bytes=self._bytes,
            max_keys=self._max_keys,
            max_bytes=self._max_bytes,
            reclaimed=self._reclaimed,
            refused=self._refused,
        )

    def reclaim(self, now: Instant, budget: int) -> int:
        """Look at up to `budget` counters and drop those that have expired; return how many were looked at."""
        looks = min(budget, len(self._queue))
        for _ in range(looks):
            key = self._queue.popleft()
            if self._counters[key][1] > now.wall_us:
                self._queue.append(key)
                continue
            del self._counters[key]
            self._bytes -= _ENTRY_BYTES + len(key)
            self._reclaimed += 1
        return looks

    def _charge_one(self, charge: Charge, now_us: int) -> Outcome:
        if charge.role is Role.OBSERVE:
            return self._judge(charge, self._count(charge, now_us), charge.hits, now_us)
        key = upstream_key(self._prefix, charge.key, upstream_window_us(charge.limit), now_us)
        entry = self._counters.get(key)
        if entry is None:
            if not self._make_room(key, now_us):
                self._refused += 1
                settings = self._limits.get(charge.identity)
                return refused_outcome(charge, settings.failure if settings else charge.failure)
            entry = self._counters[key] = [0, 0]
            self._queue.append(key)
        elif entry[1] <= now_us:
            entry[0] = 0
        before = entry[0]
        entry[0] = min(before + charge.hits, MAX_HITS)
        # EXPIRE with every INCRBY, hits 0 included; by the unit of this very charge.
        entry[1] = now_us + upstream_window_us(charge.limit)
        return self._judge(charge, before, charge.hits, now_us)

    def _judge(self, charge: Charge, before: int, hits: int, now_us: int) -> Outcome:
        return upstream_outcome(charge.limit, before, hits, now_us, Source.MEMORY)

    def _live(self, charge: Charge, now_us: int) -> list[int] | None:
        entry = self._counters.get(upstream_key(self._prefix, charge.key, upstream_window_us(charge.limit), now_us))
        return entry if entry is not None and entry[1] > now_us else None

    def _count(self, charge: Charge, now_us: int) -> int:
        entry = self._live(charge, now_us)
        return entry[0] if entry is not None else 0

    def _make_room(self, key: bytes, now_us: int) -> bool:
        """Account for a new key if there is room for it, reclaiming a little first."""
        self.reclaim(Instant(wall_us=now_us, boot_us=0), _KEYS_PER_NEW_KEY)
        size = _ENTRY_BYTES + len(key)
        if len(self._counters) >= self._max_keys or self._bytes + size > self._max_bytes:
            return False
        self._bytes += size
        return True

    def _sweep_slice(self) -> None:
        self.reclaim(self._clock.read(), SLICE_KEYS)

    def _soon(self, callback: Callable[[], None]) -> None:
        call_soon = self._call_soon or asyncio.get_running_loop().call_soon
        call_soon(callback)
