"""The memory level: a table of entries with a budget of entries and bytes.

Pressure has three levels. Below `warning_percent` of the bytes nothing happens. From there on, every few puts look
through a page of entries for expired ones. A put that would pass `critical_percent` is refused, and so are those after
it, until expired entries, then those that the policy gives up, bring the level below warning again. So the account
never passes the critical line, but for what the table itself takes when it grows.

No method takes longer than a few hundred entries' worth of work: what is a matter of all entries (expiry, clearing,
shedding) is done a page at a time, by puts and by `reclaim`. Nothing here knows a clock or a timer. Not thread-safe.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final, Generic, TypeVar

from ratelimit_service.cache.accounting import allocated_bytes, estimate_bytes
from ratelimit_service.cache.entry import NEVER_US, NO_TERMS, Entry, Terms
from ratelimit_service.cache.l1.eviction import ASKED, Eviction, Order
from ratelimit_service.cache.l1.pages import PAGE_ENTRIES
from ratelimit_service.cache.l1.policies import new_order
from ratelimit_service.cache.l1.telling import L1Stats, Pressure

__all__ = ["L1", "MIB", "MIN_BYTES"]

T = TypeVar("T")

MIB: Final = 1024 * 1024
MIN_BYTES: Final = 64 * 1024
"""Smaller budgets would go into the level's own tables."""

_ENTRY_BYTES: Final = allocated_bytes(sys.getsizeof(Entry("", None, 0, 0, 0, NO_TERMS)))
_TERMS_BYTES: Final = allocated_bytes(sys.getsizeof(NO_TERMS))
_TIME_BYTES: Final = 32
"""An `int` of microseconds since 1970."""
_EMPTY_BYTES: Final = sys.getsizeof(b"")
_EMPTY_STR: Final = sys.getsizeof("")
_SMALL_BYTES: Final = 256
_ROUND: Final = 15
"""Added before the lowest four bits are cut off: small objects come in steps of 16 B."""
_SHARED_SIZES_BELOW: Final = 16 * 1024
_SIZES: Final = tuple(range(0, _SHARED_SIZES_BELOW, 16))
"""Sizes that entries share, for a number of its own would cost each another 32 B."""
_PUTS_PER_SWEEP: Final = 16
_LEAST_BYTES_PER_ENTRY: Final = 512
_SHED_PER_PUT: Final = 128
"""Entries that a refused put looks at or evicts."""
_DEPARTURES_PER_SWEEP: Final = 256
_LEFT_SLOT: Final = 4
_REMOVED: Final = 8
"""What a departure counts for: an eviction that leaves a slot behind, and a removal; any other eviction counts 1."""
_SHED_BATCH: Final = 16
_MOST_BATCH: Final = 64
"""A full level evicts so many at once, but never more than a 64th of what it may hold."""


class L1(Generic[T]):
    """See the module. Times are microseconds of one clock that the caller chooses, and never go back.

    Args:
        max_entries: At least 1.
        max_bytes: At least 64 KiB; values, keys, and the level's own tables count.
        warning_percent, critical_percent: Of `max_bytes`; 0 < warning < critical ≤ 100.
        policy: Which entry goes when `max_entries` are held, or bytes must be freed.

    Raises:
        ValueError: An argument is out of its range.
    """

    __slots__ = (
        "_arrive",
        "_attend_at",
        "_batch",
        "_critical_bytes",
        "_departures",
        "_entries",
        "_expires_us",
        "_is_shedding",
        "_measure_at",
        "_order",
        "_retired",
        "_rounds_until_evicting",
        "_structure_bytes",
        "_touch",
        "_used_bytes",
        "_warning_bytes",
        "admitted",
        "evicted",
        "expired",
        "hits",
        "max_bytes",
        "max_entries",
        "misses",
        "policy",
        "refused",
    )

    def __init__(
        self,
        max_entries: int = 100_000,
        max_bytes: int = 200 * MIB,
        *,
        warning_percent: int = 70,
        critical_percent: int = 85,
        policy: Eviction = Eviction.S3FIFO,
    ) -> None:
        if max_entries < 1 or max_bytes < MIN_BYTES:
            raise ValueError(f"at least 1 entry and {MIN_BYTES:,} B are needed: {max_entries:,}, {max_bytes:,}")
        if not 0 < warning_percent < critical_percent <= 100:
            raise ValueError(f"0 < warning < critical <= 100 expected: {warning_percent}, {critical_percent}")
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.policy = policy
        self._batch = max(1, min(_MOST_BATCH, max_entries // 64))
        self._warning_bytes = max_bytes * warning_percent // 100
        self._critical_bytes = max_bytes * critical_percent // 100
        self.hits = self.misses = self.admitted = self.refused = self.evicted = self.expired = 0
        self._retired: deque[Order[T]] = deque()
        self._expires_us = NEVER_US
        self._is_shedding = False
        self._rounds_until_evicting = 0
        self._departures = 0
        self._used_bytes = self._structure_bytes = self._measure_at = 0
        self._begin()

    def _begin(self) -> None:
        # A policy's memory of keys takes a few hundredths of the budget at most, however many entries are allowed.
        order: Order[T] = new_order(self.policy, min(self.max_entries, self.max_bytes // _LEAST_BYTES_PER_ENTRY))
        self._order = order
        self._entries = order.entries
        self._touch = order.touch
        self._arrive = order.arrivals.append
        self._attend_at = 0
        self._measure()

    def get(self, key: str, now_us: int) -> Entry[T] | None:
        """The entry of this key, unless it has expired by `now_us`.

        It is the live entry: what is needed of it later must be read from it before control is given away.
        """
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        if entry.expires_us <= now_us:
            self.misses += 1
            self.expired += 1
            self._remove(entry, now_us)
            return None
        self.hits += 1
        marks = entry.marks
        if marks < ASKED:
            entry.marks = marks + ASKED
        if self._touch is not None:
            self._touch(key)
        return entry

    def peek(self, key: str, now_us: int) -> Entry[T] | None:
        """As `get`, but neither counted nor noticed by the policy."""
        entry = self._entries.get(key)
        return None if entry is None or entry.expires_us <= now_us else entry

    def put(
        self,
        key: str,
        value: T,
        *,
        now_us: int,
        size_bytes: int | None = None,
        expires_us: int = NEVER_US,
        soft_expires_us: int = NEVER_US,
        tags: tuple[str, ...] = (),
        cost_us: int = 0,
    ) -> bool:
        """Store a value, which nobody may change from now on, in place of the one that the key has.

        `size_bytes` is the value's memory; None: estimated by walking it. From `expires_us` on it is not served, from
        `soft_expires_us` on worth loading anew; `cost_us` is how long its load took.
        Returns False where it is refused for want of room: the key has no value then, also if it had one.
        """
        if size_bytes is not None:
            size = size_bytes + _ROUND & -16
        elif isinstance(value, bytes) and len(value) < _SMALL_BYTES:
            size = len(value) + _EMPTY_BYTES + _ROUND & -16
        else:
            size = estimate_bytes(value)
        size += _ENTRY_BYTES + (len(key) + _EMPTY_STR + _ROUND & -16 if key.isascii() else estimate_bytes(key))
        if expires_us == self._expires_us:
            # Entries made with one reading of the clock share the number.
            expires_us = self._expires_us
        else:
            self._expires_us = expires_us
            size += _TIME_BYTES
        if soft_expires_us == NEVER_US and not tags and not cost_us:
            terms = NO_TERMS
        else:
            terms = Terms(soft_expires_us, tags, cost_us)
            size += _TERMS_BYTES + _TIME_BYTES + (estimate_bytes(tags) if tags else 0)
        if size < _SHARED_SIZES_BELOW:
            size = _SIZES[size >> 4]
        if self._retired:
            self._drain(_SHED_PER_PUT)
        entries = self._entries
        entry = entries.get(key)
        used_bytes = self._used_bytes + size - (0 if entry is None else entry.size_bytes)
        if used_bytes > self._critical_bytes or self._is_shedding:
            self._refuse(entry, size, now_us)
            return False
        self._used_bytes = used_bytes
        self.admitted += 1
        if entry is None:
            if len(entries) >= self._attend_at:
                self._attend(now_us)
            entries[key] = entry = Entry(key, value, expires_us, size, 0, terms)
            self._arrive(entry)
        else:
            entry.value = value
            entry.expires_us = expires_us
            entry.size_bytes = size
            entry.terms = terms
        if used_bytes >= self._warning_bytes and not self.admitted % _PUTS_PER_SWEEP:
            self._sweep(now_us)
        return True

    def _attend(self, now_us: int) -> None:
        """What is due every hundred new entries, or when there are as many as may be."""
        order, entries = self._order, self._entries
        if len(entries) >= self.max_entries:
            self._evict(len(entries) - self.max_entries + self._batch, now_us)
        else:
            order.settle()
        if len(entries) >= self._measure_at:
            self._measure()
        self._attend_at = min(len(entries) + PAGE_ENTRIES, self.max_entries)

    def _evict(self, count: int, now_us: int) -> None:
        """Give so many entries up."""
        before = len(self._entries)
        self._used_bytes -= self._order.evict(count)
        evicted = before - len(self._entries)
        self.evicted += evicted
        self._depart(evicted * (_LEFT_SLOT if self._order.leaves_slots else 1), now_us)

    def _remove(self, entry: Entry[T], now_us: int) -> None:
        self._order.remove(entry)
        self._used_bytes -= entry.size_bytes
        self._depart(_REMOVED, now_us)

    def _depart(self, weight: int, now_us: int) -> None:
        """After so many departures, look through a page.

        It takes from the queues what departures left there, at least twice as fast as they leave it.
        """
        self._departures += weight
        while self._departures >= _DEPARTURES_PER_SWEEP:
            self._departures -= _DEPARTURES_PER_SWEEP
            self._sweep(now_us)

    def _sweep(self, now_us: int) -> int:
        """Look through a page for expired entries; return how many there were."""
        expired, is_end = self._order.sweep(now_us)
        for entry in expired:
            self._used_bytes -= entry.size_bytes
        self.expired += len(expired)
        if is_end:
            self._rounds_until_evicting -= 1
            self._measure()
        return len(expired)

    def _refuse(self, entry: Entry[T] | None, size: int, now_us: int) -> None:
        """Do a put's share of making room instead of the put."""
        self.refused += 1
        if entry is not None:
            # Its value is out of date: a newer one was just refused.
            self._remove(entry, now_us)
        if size > self._critical_bytes - self._warning_bytes:
            # Room for this could never be made for long enough; the others shall not suffer for it.
            return
        if not self._is_shedding:
            self._is_shedding = True
            # What is left of the round under way, and a whole one.
            self._rounds_until_evicting = 2
        self._shed(_SHED_PER_PUT, now_us)

    def _shed(self, budget: int, now_us: int) -> int:
        """Free bytes: expired entries first, then by policy, until below warning. Return how many entries went."""
        before = len(self._entries)
        while budget > 0 and self._used_bytes >= self._warning_bytes and self._entries:
            if self._rounds_until_evicting > 0:
                self._sweep(now_us)
                budget -= PAGE_ENTRIES
            else:
                self._evict(_SHED_BATCH, now_us)
                budget -= _SHED_BATCH
        self._is_shedding = self._used_bytes >= self._warning_bytes and bool(self._entries)
        return before - len(self._entries)

    def delete(self, key: str, now_us: int) -> bool:
        """Forget a key; return whether it had a value, expired or not."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._remove(entry, now_us)
        return True

    def clear(self) -> None:
        """Forget all keys at once. Their memory is given back by the puts and reclaims that follow."""
        if self._entries:
            self._retired.append(self._order)
            self._begin()

    def _drain(self, budget: int) -> int:
        """Give back memory of what was cleared; return how many entries' worth."""
        drained = 0
        while self._retired and drained < budget:
            order = self._retired[0]
            before = len(order.entries)
            self._used_bytes -= order.evict(min(before, budget - drained))
            drained += before - len(order.entries)
            if not order.entries:
                self._retired.popleft()
                self._measure()
        return drained

    def reclaim(self, now_us: int, budget: int) -> int:
        """Give memory back ahead of need: of cleared entries, of expired ones, and while critical of any.

        Meant to be called now and then with a small budget.

        Args:
            now_us: Now.
            budget: Entries to look at, to within 128; 10,000 take about half a millisecond.

        Returns:
            How many entries went.
        """
        freed = self._drain(budget)
        if self._is_shedding:
            return freed + self._shed(budget - freed, now_us)
        budget = min(budget - freed, len(self._entries))
        while budget > 0:
            freed += self._sweep(now_us)
            budget -= PAGE_ENTRIES
        return freed

    def keys(self, now_us: int) -> list[str]:
        """Keys that have a value at `now_us`, in no order."""
        return [entry.key for entry in self._entries.values() if entry.expires_us > now_us]

    def items(self, now_us: int) -> list[tuple[str, Entry[T]]]:
        """Keys and entries that are alive at `now_us`, in no order."""
        return [(entry.key, entry) for entry in self._entries.values() if entry.expires_us > now_us]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        """The account: values, keys, entries, tables, and what was cleared and not given back yet."""
        return self._used_bytes

    @property
    def pressure(self) -> Pressure:
        """How full the byte budget is; critical lasts until the level is below warning again."""
        if self._is_shedding or self._used_bytes >= self._critical_bytes:
            return Pressure.CRITICAL
        return Pressure.WARNING if self._used_bytes >= self._warning_bytes else Pressure.NORMAL

    def stats(self) -> L1Stats:
        """Counters and sizes."""
        return L1Stats(
            entries=len(self._entries),
            max_entries=self.max_entries,
            used_bytes=self._used_bytes,
            max_bytes=self.max_bytes,
            pressure=self.pressure,
            hits=self.hits,
            misses=self.misses,
            admitted=self.admitted,
            refused=self.refused,
            evicted=self.evicted,
            expired=self.expired,
        )

    def _measure(self) -> None:
        """Take the tables into account as they are now."""
        structure_bytes = self._order.structure_bytes() + sum(order.structure_bytes() for order in self._retired)
        self._used_bytes += structure_bytes - self._structure_bytes
        self._structure_bytes = structure_bytes
        # A dict doubles now and then: looked at each time it has grown by a sixteenth, none is missed for long.
        entries = len(self._entries)
        self._measure_at = entries + entries // 16 + 8
