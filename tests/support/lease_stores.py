"""What a shared store does with a lease, in as few words as the law allows: the specification of the store's scripts.

A state is a plain tuple. Times are small whole numbers. *Test at the earliest, charge at the latest*: a take is judged
at the store's instant and counted at the last instant at which its grant may be spent.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.quota.redis.twin import EMPTY, Answer, Refusal, apply
from ratelimit_service.quota.takes import Ask, CountedKey, Grant, Reset, Return, Take

StoreState = Hashable


class Granted(NamedTuple):
    """A store's answer to a take, as far as the protocol needs it (`quota.takes.Grant`)."""

    hits: int
    spend: int
    number: int
    epoch: int
    window: int


class Lent(NamedTuple):
    """What a return names (`quota.takes.Return`)."""

    hits: int
    number: int
    epoch: int
    window: int


class LeaseStore(Protocol):
    """One counted key of a shared store, as a function from state to state.

    Attributes:
        algorithm: The law that it keeps.
        limit: Requests, or burst.
        window: Length of the window; of a bucket, the time in which one hit is refilled.
        empty: Before anything was counted.
    """

    algorithm: Algorithm
    limit: int
    window: int
    empty: StoreState

    def take(self, state: Any, now: int, want: int, lease: int) -> tuple[StoreState, Granted]:
        """Grant up to `want` hits, to be spent within `lease` of the store's instant at the most."""

    def give_back(self, state: Any, now: int, lent: Lent) -> StoreState:
        """Take back what was not spent of a lease, unless the state has moved on."""

    def reset(self, state: Any, now: int) -> StoreState:
        """Begin anew, under the next epoch."""


class _FixedState(NamedTuple):
    window: int = 0
    used: int = 0
    number: int = 0
    epoch: int = 0


class FixedStore:
    """A window never goes back; a grant dies with its window."""

    algorithm = Algorithm.FIXED_WINDOW
    empty: StoreState = _FixedState()

    def __init__(self, limit: int, window: int) -> None:
        self.limit = limit
        self.window = window

    def take(self, state: _FixedState, now: int, want: int, lease: int) -> tuple[_FixedState, Granted]:
        window = max(state.window, now // self.window)
        used = state.used if window == state.window else 0
        hits = max(0, min(want, self.limit - used))
        spend = min(lease, (window + 1) * self.window - now)
        after = _FixedState(window, used + hits, state.number + 1, state.epoch)
        return (after if hits else state), Granted(hits, spend, after.number, after.epoch, window)

    def give_back(self, state: _FixedState, now: int, lent: Lent) -> _FixedState:
        # By the clock the window may be over, though nothing was counted in the next one.
        if lent.epoch != state.epoch or not lent.window == state.window >= now // self.window:
            return state
        return state._replace(used=max(0, state.used - lent.hits))

    def reset(self, state: _FixedState, now: int) -> _FixedState:
        return state._replace(used=0, epoch=state.epoch + 1)


class _SlidingState(NamedTuple):
    newest: int = 0
    parts: tuple[tuple[int, int], ...] = ()
    number: int = 0
    epoch: int = 0


class SlidingStore:
    """Hits count in the part in which their lease ends; the part at hand and all that may still reach it are summed."""

    algorithm = Algorithm.SLIDING_WINDOW
    empty: StoreState = _SlidingState()

    def __init__(self, limit: int, window: int, parts: int) -> None:
        self.limit = limit
        self.window = window
        self._parts = parts
        self._width = window // parts

    def take(self, state: _SlidingState, now: int, want: int, lease: int) -> tuple[_SlidingState, Granted]:
        part = max(state.newest, now // self._width)
        # The clock may be behind: time stands still until it has caught up.
        last = (max(now, part * self._width) + lease) // self._width
        parts = {at: hits for at, hits in state.parts if at >= part - self._parts}
        hits = max(0, min(want, self.limit - sum(parts.values())))
        parts[last] = parts.get(last, 0) + hits
        after = _SlidingState(part, tuple(sorted(parts.items())), state.number + 1, state.epoch)
        return (after if hits else state), Granted(hits, lease, after.number, after.epoch, last)

    def give_back(self, state: _SlidingState, now: int, lent: Lent) -> _SlidingState:
        part = max(state.newest, now // self._width)
        live = {at: hits for at, hits in state.parts if at >= part - self._parts}
        if lent.epoch != state.epoch or not lent.hits or lent.window not in live:
            return state
        live[lent.window] -= lent.hits
        return state._replace(newest=part, parts=tuple((at, hits) for at, hits in sorted(live.items()) if hits > 0))

    def reset(self, state: _SlidingState, now: int) -> _SlidingState:
        return state._replace(parts=(), epoch=state.epoch + 1)


class _BucketState(NamedTuple):
    latest: int = 0
    arrival: int = 0
    number: int = 0
    epoch: int = 0


class BucketStore:
    """The arrival time is set as if the hits came at the end of their lease; `window` is the time of one hit."""

    algorithm = Algorithm.TOKEN_BUCKET
    empty: StoreState = _BucketState()

    def __init__(self, limit: int, window: int) -> None:
        self.limit = limit
        self.window = window

    def take(self, state: _BucketState, now: int, want: int, lease: int) -> tuple[_BucketState, Granted]:
        now = max(now, state.latest)
        room = now + self.limit * self.window - max(now, state.arrival)
        hits = max(0, min(want, room // self.window))
        arrival = max(now + lease, state.arrival) + hits * self.window
        after = _BucketState(now, arrival, state.number + 1, state.epoch)
        return (after if hits else state), Granted(hits, lease, after.number, after.epoch, 0)

    def give_back(self, state: _BucketState, now: int, lent: Lent) -> _BucketState:
        # A later take may have begun where the refill had already passed these hits: it owes nothing to them.
        if (lent.number, lent.epoch) != (state.number, state.epoch):
            return state
        latest = max(now, state.latest)
        if not lent.hits or state.arrival <= latest:
            return state
        return state._replace(latest=latest, arrival=state.arrival - lent.hits * self.window)

    def reset(self, state: _BucketState, now: int) -> _BucketState:
        return state._replace(arrival=0, epoch=state.epoch + 1)


class TwinStore:
    """The real thing: the twin of the scripts in Redis, over one limit of one counted key; times are microseconds."""

    empty: StoreState = EMPTY

    def __init__(self, limit: Limit) -> None:
        self.algorithm = limit.algorithm
        self.limit = limit.burst
        is_bucket = limit.algorithm is Algorithm.TOKEN_BUCKET
        self.window = limit.window_us // limit.requests if is_bucket else limit.window_us
        self._limit = limit
        self._where = CountedKey(b"rule", b"key")

    def take(self, state: Any, now: int, want: int, lease: int) -> tuple[StoreState, Granted]:
        after, answer = apply(state, Take(self._where, (self._ask(want),), 1, lease), now)
        (grant,) = _granted(answer)
        return after, Granted(grant.granted, grant.spend_us, grant.number, grant.epoch, grant.window)

    def give_back(self, state: Any, now: int, lent: Lent) -> StoreState:
        order = Return(self._where, self._ask(lent.hits), lent.number, lent.epoch, lent.window)
        return apply(state, order, now)[0]

    def reset(self, state: Any, now: int) -> StoreState:
        return apply(state, Reset(self._where), now)[0]

    def _ask(self, hits: int) -> Ask:
        return Ask(b"limit", self._limit, hits)


def _granted(answer: Answer) -> Sequence[Grant]:
    assert not isinstance(answer, Refusal)
    return answer


class Altered:
    """A store with one rule broken, for every store: what it is asked and what it says is changed on the way."""

    def __init__(self, inner: LeaseStore) -> None:
        self.algorithm = inner.algorithm
        self.limit = inner.limit
        self.window = inner.window
        self.empty = inner.empty
        self.inner = inner

    def take(self, state: Any, now: int, want: int, lease: int) -> tuple[StoreState, Granted]:
        return self.inner.take(state, now, want, lease)

    def give_back(self, state: Any, now: int, lent: Lent) -> StoreState:
        return self.inner.give_back(state, now, lent)

    def reset(self, state: Any, now: int) -> StoreState:
        return self.inner.reset(state, now)


class WindowGoesBack(Altered):
    """Planted: the window is that of the clock, not the latest that there was."""

    def take(self, state: Any, now: int, want: int, lease: int) -> tuple[StoreState, Granted]:
        kept, fresh = (self.inner.take(before, now, want, lease) for before in (state, self.empty))
        return kept if kept[1].window == fresh[1].window else fresh


class ChargesEarly(Altered):
    """Planted: a grant is charged at the store's instant, and spent later."""

    def take(self, state: Any, now: int, want: int, lease: int) -> tuple[StoreState, Granted]:
        after, granted = self.inner.take(state, now, want, 0)
        return after, granted._replace(spend=lease)


class GrantOutlivesWindow(Altered):
    """Planted: a grant lives as long as was asked for, its window may be over."""

    def take(self, state: Any, now: int, want: int, lease: int) -> tuple[StoreState, Granted]:
        after, granted = self.inner.take(state, now, want, lease)
        return after, granted._replace(spend=lease)


class TakesBackAfterLaterTake(Altered):
    """Planted: the number of the take is not looked at."""

    def give_back(self, state: Any, now: int, lent: Lent) -> StoreState:
        return self.inner.give_back(state, now, lent._replace(number=state.number))


class TakesBackFromOtherWindow(Altered):
    """Planted: the window of the lease is not looked at."""

    def give_back(self, state: Any, now: int, lent: Lent) -> StoreState:
        at_hand = self.inner.take(state, now, 0, 0)[1].window
        return self.inner.give_back(state, now, lent._replace(window=at_hand))


class TakesBackAcrossReset(Altered):
    """Planted: the epoch of the lease is not looked at, as if a reset had begun none."""

    def give_back(self, state: Any, now: int, lent: Lent) -> StoreState:
        return self.inner.give_back(state, now, lent._replace(epoch=state.epoch, number=state.number))


class ResetForgets(Altered):
    """Planted: a reset is a DEL."""

    def reset(self, state: Any, now: int) -> StoreState:
        return self.empty
