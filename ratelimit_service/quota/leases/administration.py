"""What is asked of a store beside requests: looks, refunds, resets, and what a new master has to be told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ratelimit_service.algorithms import calendar_window, sliding_window, token_bucket
from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit, LimitSettings
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import Cell
from ratelimit_service.quota.leases.claims import MOST_WANTED, RETRY_US
from ratelimit_service.quota.leases.errands import PATIENCE_US, Clock, Errands
from ratelimit_service.quota.leases.orders import Answered, Orders
from ratelimit_service.quota.leases.sizing import length_us
from ratelimit_service.quota.store import NEVER_US, Charge, Done, Outcome, Source
from ratelimit_service.quota.takes import Ask, CountedKey, Grant, Order, Refund, Reset, Spend, Take

_UNKNOWN: Final = Outcome(True, 0, RETRY_US, 0, Source.FALLBACK, degraded=True)
"""The answer where the store gives none."""


class Administration:
    """Asks on behalf of people and new masters; see `Store` for what is promised."""

    def __init__(self, book: LeaseBook, orders: Orders, clock: Clock, errands: Errands) -> None:
        """Ask by `orders`."""
        self._book = book
        self._orders = orders
        self._clock = clock
        self._errands = errands

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Judge each charge alone by what the store says, what is in hand taken for not counted."""
        cells = [self._settled(charge, now) for charge in charges]
        orders = [_look(cell.where, charge.identity, charge.limit) for cell, charge in zip(cells, charges, strict=True)]

        def tell(answers: Sequence[Answered]) -> None:
            at = self._clock.read()
            done(
                [
                    _UNKNOWN if said.grants is None else peeked(charge, said.grants[0], cell.held(at.boot_us), at)
                    for charge, cell, said in zip(charges, cells, answers, strict=True)
                ]
            )

        self._all(orders, now, tell)

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Give hits back, each charge's at most once; the outcomes show what is left then."""
        cells = [self._settled(charge, now) for charge in charges]
        orders: list[Order] = []
        for cell, charge in zip(cells, charges, strict=True):
            cell.denied_hits = 0
            orders.append(Refund(cell.where, (Ask(charge.identity, charge.limit, min(charge.hits, MOST_WANTED)),)))

        def tell(answers: Sequence[Answered]) -> None:
            at = self._clock.read()
            done(
                [
                    _UNKNOWN if said.grants is None else _refunded(said.grants[0], cell.held(at.boot_us))
                    for cell, said in zip(cells, answers, strict=True)
                ]
            )

        self._all(orders, now, tell)

    def reset(
        self, identity: bytes, key: bytes, limits: Mapping[bytes, LimitSettings], done: Callable[[bool | None], None]
    ) -> None:
        """Begin all limits of the rule anew for a key; `done(True)` if something was counted, None: not known."""
        now = self._clock.read()
        where = self._book.where(identity, key)
        cells = self._book.of_group(where)
        for cell in cells:
            self._errands.clear_up(cell, now)
            self._book.forfeit(cell)
            cell.denied_hits = 0
        known = {cell.identity: cell.limit for cell in cells}
        if identity in limits:
            known[identity] = limits[identity].limit
        orders: list[Order] = [_look(where, each, limit) for each, limit in known.items()]

        def tell(answers: Sequence[Answered]) -> None:
            *looks, reset = answers
            if reset.grants is None:
                done(None)
                return
            counted = not looks or any(said.grants and said.grants[0].before for said in looks)
            done(bool(reset.grants[0].granted) and counted)

        self._all([*orders, Reset(where)], now, tell)

    def teach(self, cell: Cell, now: Instant) -> None:
        """Tell a new master what was counted of a cell, as far as it does not know."""
        counted = cell.counted
        if counted < 1 or now.boot_us - cell.seen_us > length_us(cell.limit):
            return

        def told(answered: Answered) -> None:
            if not answered.grants:
                return
            missing = counted - answered.grants[0].before
            fixed = cell.limit.algorithm is Algorithm.FIXED_WINDOW
            # By the time that the budget would have been full nothing of it counts any more.
            if missing > 0 and (not fixed or now.boot_us < cell.full_us):
                ask = Ask(cell.identity, cell.limit, missing)
                self._orders.submit(Spend(cell.where, (ask,)), now.boot_us + PATIENCE_US, _pass_over)

        self._orders.submit(_look(cell.where, cell.identity, cell.limit), now.boot_us + PATIENCE_US, told)

    def _settled(self, charge: Charge, now: Instant) -> Cell:
        cell = self._book.find(charge.identity, charge.key)
        if cell is None:
            cell = Cell(charge.identity, self._book.where(charge.identity, charge.key), charge.limit, now.boot_us)
        self._errands.clear_up(cell, now)
        return cell

    def _all(self, orders: Sequence[Order], now: Instant, tell: Callable[[Sequence[Answered]], None]) -> None:
        """Submit orders and tell all answers at once."""
        answers: list[Answered | None] = [None] * len(orders)
        if not orders:
            tell(())
            return

        def take_in(index: int, answered: Answered) -> None:
            answers[index] = answered
            there = [answer for answer in answers if answer is not None]
            if len(there) == len(answers):
                tell(there)

        for index, order in enumerate(orders):
            self._orders.submit(order, now.boot_us + PATIENCE_US, functools.partial(take_in, index))


def peeked(charge: Charge, look: Grant, held: int, now: Instant) -> Outcome:
    """What a charge would be told: a look's answer, with `held` hits in hand taken for not counted.

    The wait of hits that do not fit a sliding window is the longest that it may be.
    """
    limit, hits = charge.limit, charge.hits
    remaining, before = look.remaining + held, max(0, look.before - held)
    if hits <= remaining and remaining > 0:
        return Outcome(False, remaining - hits, _full_us(limit, look, hits, now), before, Source.EXACT)
    wanted = max(1, hits)
    wait_us = look.wait_us
    if wanted > limit.burst:
        wait_us = NEVER_US
    elif limit.algorithm is Algorithm.TOKEN_BUCKET:
        full_us = look.wait_us if look.remaining else look.wait_us + _drain_us(limit, limit.burst - 1)
        wait_us = max(1, full_us - _drain_us(limit, limit.burst - wanted))
    return Outcome(True, 0, wait_us, before, Source.EXACT)


def _full_us(limit: Limit, look: Grant, hits: int, now: Instant) -> int:
    """When the budget is full again once the hits are counted."""
    if not hits:
        return look.wait_us
    match limit.algorithm:
        case Algorithm.FIXED_WINDOW:
            if limit.calendar is None:
                return max(look.wait_us, look.window + limit.window_us - now.wall_us)
            return max(look.wait_us, calendar_window.window_at(limit.calendar, look.window).end_us - now.wall_us)
        case Algorithm.SLIDING_WINDOW:
            return max(look.wait_us, sliding_window.leaves_us(limit.window_us, look.window) - now.wall_us)
        case Algorithm.TOKEN_BUCKET:
            return look.wait_us + _drain_us(limit, hits)


def _drain_us(limit: Limit, hits: int) -> int:
    rate = token_bucket.rate_of(limit.requests, limit.window_us)
    return -(-hits * rate.interval >> rate.shift)


def _refunded(said: Grant, held: int) -> Outcome:
    remaining = said.remaining + held
    return Outcome(remaining < 1, remaining, said.wait_us, max(0, said.before - held), Source.EXACT)


def _look(where: CountedKey, identity: bytes, limit: Limit) -> Take:
    return Take(where, (Ask(identity, limit, 0),), 0, 0)


def _pass_over(_: Answered) -> None:
    """Nothing follows from it."""
