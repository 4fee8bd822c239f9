"""The twin of the scripts in Redis: every order on a counted key, in plain Python.

`lua/orders.lua` does the same inside Redis, and a property holds the two together on a real server.
Integers only; the time of the store is an argument. Nothing is written by a look or a denial, except for a reserve
that grew: it must be known in its window whatever else is asked.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms import calendar_window
from ratelimit_service.algorithms.fixed_window import Window
from ratelimit_service.algorithms.limit import Algorithm
from ratelimit_service.quota.redis.twin_bucket import BucketCounter
from ratelimit_service.quota.redis.twin_counter import Counter
from ratelimit_service.quota.redis.twin_fixed import FixedCounter, WindowUnknownError
from ratelimit_service.quota.redis.twin_sliding import SlidingCounter
from ratelimit_service.quota.redis.twin_state import BucketEntry, Entry, FixedEntry, SlidingEntry, State, mark_of
from ratelimit_service.quota.takes import Ask, CountedKey, Grant, Order, Refund, Reset, Return, Spend, Take

__all__ = ["EMPTY", "Answer", "Refusal", "SharedState", "apply"]

EMPTY: Final = State(epoch=0, number=0, entries=())
"""A counted key that the store does not know."""


class Refusal(enum.IntEnum):
    """Why a store did not carry out an order; it changed nothing. The values are those of the scripts' replies."""

    AGAIN = 1
    """The store's time is outside the calendar windows that the caller listed."""
    NEWER = 2
    """The state was written by a newer release in a form that this one does not know."""
    DAMAGED = 3
    """What stands under the key is no state of ours."""


Answer = Sequence[Grant] | Refusal
"""What a store says of an order. Takes, spends and refunds: a `Grant` for each ask, a refund's `granted` being what was
taken out again. Returns: one, likewise. Resets: one, `granted` 1 where there was something to reset."""


def apply(state: State, order: Order, now_us: int, listed_us: int | None = None) -> tuple[State, Answer]:
    """Carry out one order.

    Args:
        state: The counted key; `EMPTY` where the store has none.
        order: What is asked.
        now_us: The store's time.
        listed_us: The caller's time, around which it lists calendar windows; None: the store's.
    """
    step = _Step(state, now_us, now_us if listed_us is None else listed_us)
    try:
        return step.run(order)
    except WindowUnknownError:
        return state, Refusal.AGAIN


class SharedState:
    """A shared store in this process, for models and tests: counted keys and the store's law, no clock of its own.

    Attributes:
        keys: State by counted key.
    """

    def __init__(self) -> None:
        self.keys: dict[CountedKey, State] = {}

    def execute(self, orders: Sequence[Order], now_us: int, listed_us: int | None = None) -> list[Answer]:
        """Carry out orders one after another at one instant; an answer for each."""
        answers = []
        for order in orders:
            state = self.keys.get(order.where, EMPTY)
            after, answer = apply(state, order, now_us, listed_us)
            if after is not state:
                self.keys[order.where] = after
            answers.append(answer)
        return answers

    def expire(self, now_us: int) -> None:
        """Forget what may be forgotten, as Redis does by the keys' time to live."""
        for where in [where for where, state in self.keys.items() if state.until_us <= now_us]:
            del self.keys[where]


class _Step:
    """One order on one state at one instant."""

    def __init__(self, state: State, now_us: int, listed_us: int) -> None:
        self._state = state
        self._now_us = now_us
        self._listed_us = listed_us

    def run(self, order: Order) -> tuple[State, Answer]:
        match order:
            case Take():
                return self._take(order)
            case Spend():
                return self._spend(order)
            case Refund():
                return self._refund(order)
            case Return():
                return self._return(order)
            case Reset():
                return self._reset()

    def _take(self, order: Take) -> tuple[State, Answer]:
        counters = [self._open(ask) for ask in order.asks]
        least = max(1, order.least)
        grants = [max(0, min(ask.want, counter.room)) for ask, counter in zip(order.asks, counters, strict=True)]
        wanted = [grant for ask, grant in zip(order.asks, grants, strict=True) if ask.want]
        if order.equal and wanted:
            grants = [min(wanted) if ask.want else 0 for ask in order.asks]
        grants = [grant if grant >= least else 0 for grant in grants]
        number = self._next_number() if any(grants) else self._state.number
        answers, is_reserve_new = [], False
        for ask, counter, granted in zip(order.asks, counters, grants, strict=True):
            before = counter.judge(0).before
            if granted:
                counter.charge(granted, order.lease_us)
            is_reserve_new |= ask.want > 0 and counter.is_reserve_new
            wait_us = counter.full_us() if granted else _wait_us(counter, least if ask.want else 0)
            spend_us = counter.spend_us(order.lease_us) if granted else 0
            answers.append(self._grant(counter, granted, before, wait_us, spend_us, number))
        if any(grants) or is_reserve_new:
            return self._kept(counters, number), answers
        return self._state, answers

    def _spend(self, order: Spend) -> tuple[State, Answer]:
        counters = [self._open(ask) for ask in order.asks]
        number = self._next_number() if any(ask.want for ask in order.asks) else self._state.number
        answers = []
        for ask, counter in zip(order.asks, counters, strict=True):
            said = counter.judge(ask.want)
            fits = ask.want <= counter.room
            if ask.want:
                counter.charge(ask.want, 0)
            wait_us = said.wait_us if said.over else counter.full_us()
            answers.append(self._grant(counter, ask.want if fits else 0, said.before, wait_us, 0, number))
        return (self._kept(counters, number) if number != self._state.number else self._state), answers

    def _refund(self, order: Refund) -> tuple[State, Answer]:
        counters = [self._open(ask) for ask in order.asks]
        answers = []
        for ask, counter in zip(order.asks, counters, strict=True):
            before = counter.judge(0).before
            counter.give_back(ask.want)
            answers.append(self._given_back(counter, before))
        if any(answer.granted for answer in answers):
            return self._kept(counters, self._state.number), answers
        return self._state, answers

    def _return(self, order: Return) -> tuple[State, Answer]:
        counter = self._open(order.ask)
        before = counter.judge(0).before
        is_bucket = order.ask.limit.algorithm is Algorithm.TOKEN_BUCKET
        # On a bucket a later charge may have begun at the arrival time that this take had left.
        if order.epoch == self._state.epoch and (not is_bucket or order.number == self._state.number):
            counter.give_back_to(order.window, order.ask.want)
        answer = self._given_back(counter, before)
        if answer.granted:
            return self._kept([counter], self._state.number), [answer]
        return self._state, [answer]

    def _reset(self) -> tuple[State, Answer]:
        if not self._state.entries:
            return self._state, [Grant(0, 0, 0, 0, 0, 0, 0, 0)]
        entries = tuple(_emptied(entry) for entry in self._state.entries)
        after = State(self._state.epoch + 1, self._state.number, entries)
        return after, [Grant(1, 0, 0, 0, 0, after.number, after.epoch, 0)]

    def _open(self, ask: Ask) -> Counter:
        """The counter of one limit at this instant."""
        mark = mark_of(ask.identity)
        entry = self._state.entry(mark)
        match ask.limit.algorithm:
            case Algorithm.FIXED_WINDOW:
                listed: Sequence[Window] = ()
                if ask.limit.calendar is not None:
                    listed = calendar_window.windows_around(ask.limit.calendar, self._listed_us)
                return FixedCounter(mark, entry if isinstance(entry, FixedEntry) else None, ask, listed, self._now_us)
            case Algorithm.SLIDING_WINDOW:
                return SlidingCounter(mark, entry if isinstance(entry, SlidingEntry) else None, ask, self._now_us)
            case Algorithm.TOKEN_BUCKET:
                return BucketCounter(mark, entry if isinstance(entry, BucketEntry) else None, ask, self._now_us)

    def _next_number(self) -> int:
        return max(self._state.number + 1, self._now_us)

    def _grant(self, counter: Counter, granted: int, before: int, wait_us: int, spend_us: int, number: int) -> Grant:
        remaining = max(0, counter.room)
        return Grant(granted, remaining, before, wait_us, spend_us, number, self._state.epoch, counter.window)

    def _given_back(self, counter: Counter, before: int) -> Grant:
        after = counter.judge(0).before
        return self._grant(counter, before - after, after, _wait_us(counter, 0), 0, self._state.number)

    def _kept(self, counters: Sequence[Counter], number: int) -> State:
        """The state with what the counters now hold; entries that may be forgotten are."""
        changed = {entry.mark: entry for entry in (counter.entry() for counter in counters)}
        others = (entry for entry in self._state.entries if entry.until_us > self._now_us)
        entries = [changed.pop(entry.mark, entry) for entry in others]
        return State(self._state.epoch, number, (*entries, *changed.values()))


def _wait_us(counter: Counter, least: int) -> int:
    """Until `least` (at least 1) fits; where it does, until the budget is full."""
    return counter.full_us() if max(1, least) <= counter.room else counter.judge(least).wait_us


def _emptied(entry: Entry) -> Entry:
    match entry:
        case FixedEntry():
            return msgspec.structs.replace(entry, count=0)
        case SlidingEntry():
            return msgspec.structs.replace(entry, parts=())
        case BucketEntry():
            return msgspec.structs.replace(entry, backlog=0)
