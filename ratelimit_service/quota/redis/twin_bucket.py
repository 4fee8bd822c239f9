"""Token buckets in a shared store: a lease moves the arrival time as if all of it were spent at its end.

A take of n hits at t, spendable for l, is tested with max(t, arrival) + n·T and charged as max(t + l, arrival) + n·T.
Without that deferral tokens refill while they are held, and an interval can hold two bursts.
Proof: for spends in [s, e] let i and j be the first and last of their takes. Take i's lease ends at s or later, so the
arrival time before take j is at least s + T · (hits of takes i to j-1); take j was tested against e + burst · T.
Hence all the hits are at most burst + (e - s) / T.

A slot that owns a standing allowance of `a` hits has a bucket of burst `a` that refills `a` in each window. The
reserve, their sum, is therefore taken off both the burst and the rate of the pool.
"""

from __future__ import annotations

from ratelimit_service.algorithms import token_bucket
from ratelimit_service.algorithms.judgement import Judgement
from ratelimit_service.algorithms.token_bucket import Rate
from ratelimit_service.quota.redis.twin_state import BACKLOG_LIMIT, NO_RESERVE, BucketEntry, kept_until_us
from ratelimit_service.quota.takes import Ask

_FRACTIONS = 256
"""A backlog is converted to another rate in these fractions of a hit, rounded up."""


def converted(backlog: int, old: Rate, new: Rate) -> int:
    """As many hits to drain, at another rate.

    In steps that a double holds: whole hits, then what is left of one in 256ths, rounded up.
    """
    whole, rest = divmod(backlog, old.interval)
    fractions = -(-rest * _FRACTIONS // old.interval)
    return min(BACKLOG_LIMIT, whole * new.interval + -(-fractions * new.interval // _FRACTIONS))


class BucketCounter:
    """One token bucket; see `Counter`."""

    def __init__(self, mark: bytes, entry: BucketEntry | None, ask: Ask, now_us: int) -> None:
        """Open it at `now_us`."""
        self._mark = mark
        self._opened = entry
        limit = ask.limit
        self._window_us = limit.window_us
        # Time never goes back: a clock that does refills nothing until it has caught up.
        self._at_us = max(now_us, entry.at_us if entry else 0)
        self._behind_us = self._at_us - now_us
        kept = (entry.reserve if entry else NO_RESERVE).since(self._at_us - limit.window_us)
        self._reserve = kept.with_asked(ask.reserve if ask.lasting else 0, self._at_us)
        self.is_reserve_new = self._reserve.hits > kept.hits
        left_alone = max(self._reserve.hits, ask.reserve)
        requests = limit.requests - left_alone
        self._rate = token_bucket.rate_of(max(1, requests), limit.window_us)
        burst = max(0, limit.burst - left_alone) if requests > 0 else 0
        self._burst = min(burst, BACKLOG_LIMIT // self._rate.interval)
        self._backlog = 0
        if entry is not None:
            old = Rate(entry.shift, entry.interval)
            drained = (self._at_us - entry.at_us) << old.shift
            self._backlog = max(0, entry.backlog - drained)
            if old != self._rate:
                self._backlog = converted(self._backlog, old, self._rate)
        self.window = 0
        self._set_room()

    def judge(self, hits: int) -> Judgement:
        """What the law says of `hits` now."""
        said = token_bucket.judge(self._rate, self._burst, self._backlog, hits, 0)
        behind_us = self._behind_us if said.wait_us > 0 else 0
        return Judgement(said.over, said.remaining, said.wait_us + behind_us, said.before)

    def full_us(self) -> int:
        """Until the backlog has drained."""
        return -(-self._backlog >> self._rate.shift) + self._behind_us if self._backlog else 0

    def charge(self, hits: int, lease_us: int) -> None:
        """Count hits as if they were all spent when the lease ends."""
        latest = max(self.spend_us(lease_us) << self._rate.shift, self._backlog)
        self._put(min(BACKLOG_LIMIT, latest + hits * self._rate.interval))

    def spend_us(self, lease_us: int) -> int:
        """The whole lease, at most a window."""
        return min(lease_us, self._window_us)

    def give_back(self, hits: int) -> None:
        """Take hits out again; a full bucket stays full."""
        self._put(token_bucket.give_back(self._rate, self._backlog, hits, 0))

    def give_back_to(self, window: int, hits: int) -> None:
        """Take hits out again; a bucket has no windows."""
        self.give_back(hits)

    def entry(self) -> BucketEntry:
        """What to keep."""
        full_us = self._at_us + -(-self._backlog >> self._rate.shift)
        # A reserve, and the time that was reached, are to be known for a window.
        counts_until_us = max(full_us, self._reserve.at_us + self._window_us)
        until_us = kept_until_us(self._opened, counts_until_us, self._window_us)
        rate = self._rate
        return BucketEntry(self._mark, until_us, self._reserve, self._at_us, self._backlog, rate.interval, rate.shift)

    def _put(self, backlog: int) -> None:
        self._backlog = backlog
        self._set_room()

    def _set_room(self) -> None:
        depth = self._burst * self._rate.interval
        self.room = (depth - self._backlog) // self._rate.interval
