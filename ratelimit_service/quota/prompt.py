"""A shorter way for the most frequent requests, of stores that need not be asked later.

Such a request ENFORCEs limits of different identities and nothing else. What depends on the rules that it meets, and
not on its values, is made once and shared by all requests that meet the same ones: beside its keys, a remembered
request then is a few words of memory, and charging it touches little more than its counters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.quota.store import Charge, Outcome, Role


class Counted(Protocol):
    """A limit that is counted against; a `Charge` is one too."""

    @property
    def identity(self) -> bytes:
        """Which counter family."""

    @property
    def limit(self) -> Limit:
        """The numbers in force now."""


class CountedSide(Protocol):
    """What one descriptor counts against, all with the same key."""

    @property
    def limits(self) -> Sequence[Counted]:
        """In order."""

    @property
    def hits(self) -> int:
        """Hits of each."""


class CountedForm(Protocol):
    """What a request counts against; no identity comes twice."""

    @property
    def sides(self) -> Sequence[CountedSide]:
        """By descriptor."""

    @property
    def charges(self) -> int:
        """Limits of all sides together."""


@runtime_checkable
class PromptStore(Protocol):
    """Decides at once, always, and the same as `Store.charge` about `enforced_charges`."""

    def charge_one(self, counted: Counted, key: bytes, hits: int, now: Instant) -> Outcome:
        """Decide a request of one limit."""

    def charge_form(self, form: CountedForm, keys: Sequence[bytes], now: Instant) -> Sequence[Outcome]:
        """Decide a request of several limits; `keys` are those of the form's sides."""


Glance: TypeAlias = Callable[[Counted, bytes, int, Instant], Outcome | None]
"""Decides a request of one limit (counted, key, hits) at once, or says None and has counted nothing."""


@runtime_checkable
class LeasingStore(Protocol):
    """Decides some requests at once, the same as `Store.charge` does, from what it has in hand.

    Attributes:
        at_hand: Decides those; None: so few that trying is not worth it.
    """

    at_hand: Glance | None


def enforced_charges(form: CountedForm, keys: Sequence[bytes]) -> tuple[Charge, ...]:
    """The charges of a request, for any store."""
    return tuple(
        Charge(counted.identity, counted.limit, key, side.hits, Role.ENFORCE, unit)
        for unit, (side, key) in enumerate(zip(form.sides, keys, strict=True))
        for counted in side.limits
    )
