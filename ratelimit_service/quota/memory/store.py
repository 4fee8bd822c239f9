"""The embedded store: exact counts in one process's memory, bounded.

Each limit identity has a book of counters. A request of one ENFORCE charge, by far the most frequent one,
is a single `take` on its book; any other is judged first, decided as a whole (`quota.decision`) and then counted.

A key that finds no room (`bounds`) counts in one of 4,096 counters of its limit, chosen by a keyed hash,
each of which admits at most the limit: such keys are limited together, never admitted beyond it.
When there is room again, the key's own counter begins with all that its hashed counter has seen, so that nobody's
budget comes back early. Only a counter that has expired, or whose budget is full, is ever dropped;
counters of a limit that is no longer in force go in slices.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from ratelimit_service.algorithms.limit import FailureMode, Instant, LimitSettings
from ratelimit_service.quota.decision import MAX_HITS, decide
from ratelimit_service.quota.memory.book import Book
from ratelimit_service.quota.memory.bounds import EXACT_PERCENT, MIB, Bounds, CallSoon, Clock, StoreStats
from ratelimit_service.quota.memory.ledger import ledger_for
from ratelimit_service.quota.memory.placement import Place, Placement
from ratelimit_service.quota.memory.sweeper import SLICE_KEYS, Sweeper
from ratelimit_service.quota.prompt import Counted, CountedForm, enforced_charges
from ratelimit_service.quota.store import Charge, Done, Outcome, Role, Usage

__all__ = ["PAGE_COUNTERS", "MemoryStore"]

PAGE_COUNTERS: Final = 100
"""Counters on a page of `usage`."""

REFUSAL_SHOWN_US: Final = 10_000_000
"""How long a want of room stays in `bound`: as long as a gauge may go unread."""


class MemoryStore:
    """Counts hits in this process; implements `Store` and `PromptStore`.

    `peek`, `refund`, `reset` and `usage` call `done` before they return.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        max_keys: int = 1_000_000,
        max_bytes: int = 200 * MIB,
        call_soon: CallSoon | None = None,
        hash_key: bytes | None = None,
        exact_percent: float = EXACT_PERCENT,
    ) -> None:
        """Make an empty store.

        Args:
            clock: Read for what happens outside a request: late charges, usage, background slices.
            max_keys: Most counters held, hashed ones included; at least 1.
            max_bytes: Most memory that they may take, by estimate.
            call_soon: Runs late charges; None: the running loop's.
            hash_key: Secret that spreads keys over hashed counters, 1 to 64 bytes; None: a random one.
            exact_percent: Of these bounds, what is for keys of their own; new keys beyond it count in hashed counters.
        """
        self._clock = clock
        self._call_soon = call_soon
        self._hash_key = secrets.token_bytes(16) if hash_key is None else hash_key
        self._exact_percent = exact_percent
        self._bounds = Bounds(max_keys, max_bytes, exact_percent)
        self._places = Placement(self._bounds, self._hash_key)
        self._books = self._places.books
        self._single_charges = 0
        self._grouped_charges = dict.fromkeys(Role, 0)
        self._sweeper = Sweeper(self._sweep_slice)

    # The request path.

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        """Decide one request at once; never None."""
        if len(charges) == 1 and charges[0].role is Role.ENFORCE:
            charge = charges[0]
            outcome = self._take_open(charge, charge.key, charge.hits, now)
            return (outcome or self._take_anywhere(charge, now),)
        return self._charge_group(charges, now)

    def charge_one(self, counted: Counted, key: bytes, hits: int, now: Instant) -> Outcome:
        """See `PromptStore`."""
        # As `_take_open`, written out because it is the path of every check of the library's limiter.
        book = self._books.get(counted.identity)
        if book is None or not book.open or not self._bounds.headroom:
            return self._take_anywhere(Charge(counted.identity, counted.limit, key, hits), now)
        self._single_charges += 1
        outcome = book.take(counted.limit, key, hits, now)
        if not outcome.before:
            self._places.grew(book, now)
        return outcome

    def charge_form(self, form: CountedForm, keys: Sequence[bytes], now: Instant) -> Sequence[Outcome]:
        """See `PromptStore`."""
        outcomes = self._take_all(form, keys, now)
        return outcomes or self._charge_group(enforced_charges(form, keys), now)

    def charge_later(self, charges: Sequence[Charge], deadline_us: int, done: Done) -> None:
        """Decide on the loop's next turn, by the clock of then."""
        call_soon = self._call_soon or asyncio.get_running_loop().call_soon
        call_soon(lambda: done(self.charge(charges, self._clock.read())))

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Judge each charge alone, changing nothing."""
        done([self._peek_one(charge, charge.hits, now) for charge in charges])

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Give hits back where they were counted; the outcomes show what is left then."""
        outcomes = []
        for charge in charges:
            book = self._books.get(charge.identity)
            if book is not None and charge.hits:
                ledger, key = self._places.locate(book, charge.key)
                ledger.give_back(charge.limit, key, charge.hits, now)
            outcomes.append(self._peek_one(charge, 0, now))
        done(outcomes)

    # Administration.

    def reset(self, identity: bytes, key: bytes, done: Callable[[bool], None]) -> None:
        """Forget a key's own counter; a hashed counter is not reset, because other keys' hits are in it."""
        self._places.settle_all()
        book = self._books.get(identity)
        forgotten = book is not None and book.ledger.forget(key)
        if book is not None and forgotten:
            self._bounds.settle(book)
        done(forgotten)

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage]], None]) -> None:
        """List keys with a counter of their own, of limits in force; a page that is not full is the last."""
        now = self._clock.read()
        skip = page * PAGE_COUNTERS
        shown: list[Usage] = []
        for identity, settings in self._places.limits.items():
            book = self._books.get(identity) if settings.domain == domain else None
            if book is None:
                continue
            # Nothing is looked at yet: the window of now begins, so that pages are of what is live.
            book.ledger.reclaim(now, 0)
            if skip >= book.ledger.listed:
                skip -= book.ledger.listed
                continue
            for key in book.ledger.keys(skip, PAGE_COUNTERS - len(shown)):
                outcome = book.ledger.judge(settings.limit, key, 0, now)
                shown.append(Usage(identity, key, outcome.before, outcome.remaining, outcome.wait_us))
            skip = 0
            if len(shown) >= PAGE_COUNTERS:
                break
        done(shown)

    def bound(self, rule: str) -> int:
        """Return 0: counts are exact. 2**64-1 for a rule of failure mode Open from 10 s ago to now without room."""
        if not self.is_refusing():
            return 0
        opened = any(each.rule == rule and each.failure is FailureMode.OPEN for each in self._places.limits.values())
        return MAX_HITS if opened else 0

    def is_refusing(self) -> bool:
        """Whether a key found no room at all in the last 10 s."""
        return self._clock.read().boot_us - self._places.refused_at_us <= REFUSAL_SHOWN_US

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """Take the limits in force. Counts stay; the next slices drop those of limits that are gone."""
        self._places.limits = limits
        settings = iter(limits.values())
        first = next(settings, None)
        self._bounds.sole_rule = first is None or all(
            each.rule == first.rule and each.domain == first.domain for each in settings
        )

    async def start(self) -> None:
        """Begin to reclaim in the background."""
        self._sweeper.start()

    async def close(self) -> None:
        """Stop reclaiming and let go of every counter."""
        self._sweeper.close()
        self._bounds = Bounds(self._bounds.max_keys, self._bounds.max_bytes, self._exact_percent)
        self._places = Placement(self._bounds, self._hash_key)
        self._books = self._places.books

    def stats(self) -> StoreStats:
        """Read the plain integers."""
        self._places.settle_all()
        by_role = self._grouped_charges
        return StoreStats(
            keys=self._bounds.keys + self._bounds.shared_keys,
            bytes=self._bounds.bytes + self._bounds.shared_bytes,
            max_keys=self._bounds.max_keys,
            max_bytes=self._bounds.max_bytes,
            shared_keys=self._bounds.shared_keys,
            created=self._places.created,
            reclaimed=self._places.reclaimed,
            shared_decisions=self._places.shared_decisions,
            refused=self._places.refused,
            uncounted=self._places.uncounted,
            enforce_charges=by_role[Role.ENFORCE] + self._single_charges,
            penalty_charges=by_role[Role.PENALTY],
            shadow_charges=by_role[Role.SHADOW],
            quota_charges=by_role[Role.QUOTA],
            observe_charges=by_role[Role.OBSERVE],
        )

    def reclaim(self, now: Instant, budget: int) -> int:
        """Do a slice of background work on about `budget` keys (`Placement.reclaim`)."""
        self._places.settle_all()
        return self._places.reclaim(now, budget)

    # One charge.

    def _take_open(self, counted: Counted, key: bytes, hits: int, now: Instant) -> Outcome | None:
        """Take for an ENFORCE charge whose book is open; None: it is not, and nothing was counted."""
        book = self._books.get(counted.identity)
        if book is None or not book.open or not self._bounds.headroom:
            return None
        self._single_charges += 1
        outcome = book.take(counted.limit, key, hits, now)
        # A key that is new has counted nothing before.
        if not outcome.before:
            self._places.grew(book, now)
        return outcome

    def _take_anywhere(self, charge: Charge, now: Instant) -> Outcome:
        """Take for one ENFORCE charge whose book is not open: it may be new, short of room or hashed."""
        self._single_charges += 1
        self._places.settle_all()
        self._places.make_room(charge, now)
        place = self._places.place(charge, now)
        self._places.forget_plan()
        outcome = (
            self._places.refuse(charge, now)
            if place is None
            else place[0].take(charge.limit, place[1], charge.hits, now)
        )
        book = self._books.get(charge.identity)
        if book is not None:
            self._places.settle(book, now)
        return outcome

    def _peek_one(self, charge: Charge, hits: int, now: Instant) -> Outcome:
        book = self._books.get(charge.identity)
        if book is None:
            return ledger_for(charge.limit).judge(charge.limit, charge.key, hits, now)
        ledger, key = self._places.locate(book, charge.key)
        return ledger.judge(charge.limit, key, hits, now)

    # Several charges.

    def _take_all(self, form: CountedForm, keys: Sequence[bytes], now: Instant) -> list[Outcome] | None:
        """Decide a request of ENFORCE charges on different limits with room for all, or return None.

        Each is taken in turn. When one does not fit, those before it are given back at the same instant, which undoes
        them.
        """
        wanted = form.charges
        if self._bounds.headroom < wanted:
            return None
        find = self._books.get
        outcomes: list[Outcome] = []
        grown: list[Book] = []
        for side, key in zip(form.sides, keys, strict=True):
            hits = side.hits
            for counted in side.limits:
                book = find(counted.identity)
                if book is None or not book.open or book.share.headroom < wanted:
                    self._give_back(form, keys, len(outcomes), now)
                    return None
                outcome = book.take(counted.limit, key, hits, now)
                if outcome.over:
                    self._give_back(form, keys, len(outcomes), now)
                    return self._say_denied(form, keys, now)
                outcomes.append(outcome)
                if not outcome.before:
                    grown.append(book)
        self._single_charges += wanted
        # Only now that all is counted: settling may close a book that it finds empty.
        for book in grown:
            self._places.grew(book, now)
        return outcomes

    def _say_denied(self, form: CountedForm, keys: Sequence[bytes], now: Instant) -> list[Outcome] | None:
        """What to say of each charge when not all fit and nothing was counted; None as in `_take_all`."""
        outcomes = []
        for side, key in zip(form.sides, keys, strict=True):
            for counted in side.limits:
                book = self._books.get(counted.identity)
                if book is None or not book.open or book.share.headroom < form.charges:
                    return None
                outcome = book.ledger.judge(counted.limit, key, side.hits, now)
                if side.hits and not outcome.over:
                    outcome = book.ledger.judge(counted.limit, key, 0, now)
                outcomes.append(outcome)
        self._single_charges += form.charges
        return outcomes

    def _give_back(self, form: CountedForm, keys: Sequence[bytes], taken: int, now: Instant) -> None:
        """Undo the first `taken` charges, made at this very instant."""
        for charge in enforced_charges(form, keys)[:taken]:
            if charge.hits:
                self._books[charge.identity].ledger.give_back(charge.limit, charge.key, charge.hits, now)

    def _charge_group(self, charges: Sequence[Charge], now: Instant) -> list[Outcome]:
        """Decide any request: find each charge's counter, decide on all of them, then count."""
        self._places.settle_all()
        for charge in charges:
            self._places.make_room(charge, now)
        places: list[Place | None] = []
        counters: list[Hashable] = []
        for index, charge in enumerate(charges):
            self._grouped_charges[charge.role] += 1
            place = (
                self._places.place_observer(charge) if charge.role is Role.OBSERVE else self._places.place(charge, now)
            )
            places.append(place)
            counters.append(index if place is None else (id(place[0]), place[1]))
        self._places.forget_plan()
        refusals = {
            index: self._places.refuse(charges[index], now) for index, place in enumerate(places) if place is None
        }

        def judge(index: int, hits: int) -> Outcome:
            place = places[index]
            if place is None:
                return refusals[index]
            return place[0].judge(charges[index].limit, place[1], hits, now)

        decision = decide(charges, counters, judge)
        for charge, place, counted in zip(charges, places, decision.counted, strict=True):
            if counted and place is not None and charge.hits:
                place[0].spend(charge.limit, place[1], charge.hits, now)
        for identity in {charge.identity for charge in charges}:
            book = self._books.get(identity)
            if book is not None:
                self._places.settle(book, now)
        return decision.outcomes

    def _sweep_slice(self) -> None:
        self.reclaim(self._clock.read(), SLICE_KEYS)
