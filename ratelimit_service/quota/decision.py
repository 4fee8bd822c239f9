"""Decide one request's charges together: does it pass, and which charges are counted.

Pure: no counter is touched here. The store says how many hits would fit (`Judge`), gets a `Decision` back
and counts what it names. The rules (DECISIONS 3, 6, 7), in the order in which they apply:

1. OBSERVE charges are judged on the counters as found and never counted.
2. ENFORCE and PENALTY charges must all fit, together where two of them share a counter.
3. QUOTA units are taken in order, each on what is left; the request is over if there are some and none fits.
4. The request is over if 2 or 3 says so. Then only PENALTY charges are counted, in full.
   Otherwise every enforced charge and every fitting quota unit is counted.
5. SHADOW units are taken in order, each on what is left; those that fit are counted if the request is not over.

A charge that fits and is not counted is answered as if it had not been made: not over, nothing taken off.
Hits 0 ask about the counter as found, whatever else the request takes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import msgspec

from ratelimit_service.quota.store import Charge, Outcome, Role

__all__ = ["MAX_HITS", "Decision", "Judge", "decide", "is_over"]

MAX_HITS = 2**64 - 1
"""Where sums of hits saturate: the most that one charge can carry."""

Judge = Callable[[int, int], Outcome]
"""`judge(index, hits)`: would so many hits fit the counter of charge `index` as it stands? Changes nothing."""

_ENFORCED = (Role.ENFORCE, Role.PENALTY)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What becomes of one request.

    Attributes:
        over: The request does not pass.
        outcomes: One per charge, as the caller of the store sees it.
        counted: One per charge: its hits are to be counted, in full even where they do not fit (PENALTY).
    """

    over: bool
    outcomes: list[Outcome]
    counted: list[bool]


def is_over(charges: Sequence[Charge], outcomes: Sequence[Outcome]) -> bool:
    """Say from a store's answer whether the request is over: rules 2 and 3 above."""
    quota_unit_over: dict[int, bool] = {}
    for charge, outcome in zip(charges, outcomes, strict=True):
        if charge.role in _ENFORCED:
            if outcome.over:
                return True
        elif charge.role is Role.QUOTA:
            quota_unit_over[charge.unit] = quota_unit_over.get(charge.unit, False) or outcome.over
    return bool(quota_unit_over) and all(quota_unit_over.values())


def decide(charges: Sequence[Charge], counters: Sequence[Hashable], judge: Judge) -> Decision:
    """Decide a request.

    Args:
        charges: Its charges, in order.
        counters: Per charge, a name of the counter that its hits go to; equal names are one counter.
        judge: Answers for the counters as they stand before the request.
    """
    return _Deliberation(charges, counters, judge).conclude()


class _Deliberation:
    """One run of `decide`: outcomes so far, and what the request has been promised of each counter."""

    def __init__(self, charges: Sequence[Charge], counters: Sequence[Hashable], judge: Judge) -> None:
        self._charges = charges
        self._counters = counters
        self._judge = judge
        self._outcomes: list[Outcome] = [judge(index, charge.hits) for index, charge in enumerate(charges)]
        self._counted = [False] * len(charges)
        self._promised: dict[Hashable, int] = {}

    def conclude(self) -> Decision:
        """Apply the rules in order."""
        self._fit_together(self._with_role(Role.OBSERVE), {})
        enforced = [index for index, charge in enumerate(self._charges) if charge.role in _ENFORCED]
        enforced_fit = self._fit_together(enforced, self._promised)
        if not enforced_fit:
            self._promise_penalties_only()
        quota_units = self._units(Role.QUOTA)
        fitting = [unit for unit in quota_units if self._take_unit(unit)]
        over = not enforced_fit or (bool(quota_units) and not fitting)
        if over:
            self._promise_penalties_only()
        for index in enforced:
            self._counted[index] = not over or self._charges[index].role is Role.PENALTY
        shadow_fitting = [unit for unit in self._units(Role.SHADOW) if self._take_unit(unit)]
        for unit in (*fitting, *shadow_fitting):
            for index in unit:
                self._counted[index] = not over
        self._undo_uncounted(over=over)
        return Decision(over=over, outcomes=self._outcomes, counted=self._counted)

    def _with_role(self, role: Role) -> list[int]:
        return [index for index, charge in enumerate(self._charges) if charge.role is role]

    def _units(self, role: Role) -> list[list[int]]:
        """Charges of a role by descriptor, in the order of their first charge."""
        units: dict[int, list[int]] = {}
        for index in self._with_role(role):
            units.setdefault(self._charges[index].unit, []).append(index)
        return list(units.values())

    def _fit_together(self, indexes: Iterable[int], promised: dict[Hashable, int]) -> bool:
        """Judge charges in order on top of what is `promised`, adding each; True if every one fits."""
        fit = True
        for index in indexes:
            hits, counter = self._charges[index].hits, self._counters[index]
            ahead = promised.get(counter, 0)
            if hits and ahead:
                self._outcomes[index] = self._judge(index, min(ahead + hits, MAX_HITS))
            promised[counter] = min(ahead + hits, MAX_HITS)
            fit = fit and not self._outcomes[index].over
        return fit

    def _take_unit(self, unit: Sequence[int]) -> bool:
        """Promise a unit its hits if all of them fit what is left."""
        trial = dict(self._promised)
        fits = self._fit_together(unit, trial)
        if fits:
            self._promised = trial
        return fits

    def _promise_penalties_only(self) -> None:
        """The request is refused: of its hits only the penalties reach the counters."""
        self._promised = {}
        for index in self._with_role(Role.PENALTY):
            counter = self._counters[index]
            self._promised[counter] = min(self._promised.get(counter, 0) + self._charges[index].hits, MAX_HITS)

    def _undo_uncounted(self, *, over: bool) -> None:
        """Answer what fits and is not counted without its hits.

        An OBSERVE charge of a request that passes keeps its answer: it shows what its limit would have said.
        """
        for index, charge in enumerate(self._charges):
            shown = self._counted[index] or self._outcomes[index].over or not charge.hits
            if not shown and (over or charge.role is not Role.OBSERVE):
                self._outcomes[index] = self._judge(index, 0)
