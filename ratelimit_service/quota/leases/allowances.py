"""What a replica spends without asking: counts of its own, by the same laws as the store's, at a part of the limit.

Standing allowances and the shares of the failure mode `Share` count in the same ledgers, so that a share includes
what was spent of the standing allowance, and a store that flaps gives no share twice. A count is only forgotten when
its time is over: where there is no room for a new key, it has no allowance.

Time here is the store's, as far as it is known, for windows, which must end when the store's do; and the replica's
own for sliding windows and buckets, slowed by the greatest drift, so that an interval is never shorter than it looks.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

import msgspec

from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from ratelimit_service.quota.leases.sizing import DRIFT_PPM
from ratelimit_service.quota.memory.ledger import Ledger, ledger_for
from ratelimit_service.quota.store import Charge

_MILLION: Final = 1_000_000
_MOST_PARTS: Final = 4_096


class StoreTime:
    """The store's wall clock, as a function of the replica's boot clock.

    Attributes:
        known: It was read at least once.
    """

    __slots__ = ("_error_us", "_offset_us", "_read_us", "known")

    def __init__(self) -> None:
        self.known = False
        self._offset_us = self._error_us = self._read_us = 0

    def observe(self, store_wall_us: int, sent_us: int, received_us: int) -> None:
        """Take in a reading of the store's clock, made between `sent_us` and `received_us` (boot time)."""
        self.known = True
        self._error_us = (received_us - sent_us + 1) // 2 + 1
        self._offset_us = store_wall_us - (sent_us + received_us) // 2
        self._read_us = received_us

    def at(self, now: Instant) -> int:
        """The store's wall time; the replica's while it is not known."""
        return now.boot_us + self._offset_us if self.known else now.wall_us

    def error_us(self, now: Instant) -> int:
        """By how much `at` may be off, either way: half the round trip, and drift since."""
        return self._error_us + -(-max(0, now.boot_us - self._read_us) * DRIFT_PPM // _MILLION)


def slowed(boot_us: int) -> int:
    """Boot time by a clock that is surely not faster than the store's."""
    return boot_us - boot_us * DRIFT_PPM // _MILLION


class Allowances:
    """Local counts of every limit that a replica spends without asking.

    Attributes:
        time: The store's clock.
    """

    def __init__(self, max_keys: int) -> None:
        """Make empty counts of at most `max_keys` keys."""
        self.time = StoreTime()
        self._max_keys = max_keys
        self._keys = 0
        self._ledgers: dict[bytes, tuple[Ledger, Limit]] = {}
        self._parts: dict[tuple[Limit, int, int], Limit | None] = {}

    def left(self, charge: Charge, hits: int, refill: int, now: Instant) -> int:
        """What is left of an allowance of `hits`; a bucket refills `refill` of them in a window."""
        part = self._part(charge.limit, hits, refill)
        if part is None:
            return 0
        known = self._ledgers.get(charge.identity)
        if known is None or not known[0].holds(charge.key):
            return hits if self._keys < self._max_keys else 0
        return known[0].judge(part, charge.key, 0, self._instant(charge.limit, now)).remaining

    def spend(self, charge: Charge, hits: int, of: int, refill: int, now: Instant) -> None:
        """Count hits of an allowance of `of` hits, whether or not they fit."""
        part = self._part(charge.limit, of, refill)
        if part is None or not hits:
            return
        known = self._ledgers.get(charge.identity)
        if known is None:
            known = self._ledgers[charge.identity] = (ledger_for(charge.limit), charge.limit)
        ledger = known[0]
        held = len(ledger)
        ledger.spend(part, charge.key, hits, self._instant(charge.limit, now))
        self._keys += len(ledger) - held

    def reclaim(self, now: Instant, budget: int) -> None:
        """Look at up to `budget` keys of each limit and drop those whose time is over."""
        for identity, (ledger, limit) in list(self._ledgers.items()):
            ledger.reclaim(self._instant(limit, now), budget)
            if not len(ledger):
                del self._ledgers[identity]
        self._keys = sum(len(ledger) for ledger, _ in self._ledgers.values())

    def __len__(self) -> int:
        return self._keys

    def _instant(self, limit: Limit, now: Instant) -> Instant:
        wall_us = self.time.at(now) if limit.algorithm is Algorithm.FIXED_WINDOW else slowed(now.boot_us)
        return Instant(wall_us, now.boot_us)

    def _part(self, limit: Limit, hits: int, refill: int) -> Limit | None:
        """The limit at `hits`; None: nothing at all."""
        at = (limit, hits, refill)
        if at in self._parts:
            return self._parts[at]
        if len(self._parts) >= _MOST_PARTS:
            self._parts.clear()
        is_bucket = limit.algorithm is Algorithm.TOKEN_BUCKET
        part = None
        if hits > 0 and (refill > 0 or not is_bucket):
            part = msgspec.structs.replace(limit, requests=refill if is_bucket else hits, burst=hits)
        self._parts[at] = part
        return part


def share_of(hits: int, key: bytes, slots: int, rank: int | None) -> int:
    """The part of `hits` that one of `slots` replicas has of a key: ⌊hits/S⌋, and 1 more for `hits mod S` of them.

    Over all ranks the parts of a key add up to `hits`. A replica that does not know its rank has no part of the rest.
    """
    part, rest = divmod(hits, slots)
    return part + (rank is not None and (crc32(key) + rank) % slots < rest)
