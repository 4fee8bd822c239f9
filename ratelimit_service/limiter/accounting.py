"""Metrics of a decided request: plain integers, no label is built here (DECISIONS 36)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ratelimit_service.limiter.near import near_hits, near_hits_over
from ratelimit_service.limiter.plan import Kind, Part, Plan, Side
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.quota.store import Charge, Outcome, Role, Source
from ratelimit_service.telemetry.counter_table import CounterTable

_MEMORY: Final = Source.MEMORY


class Accountant:
    """Adds decided requests to the counters."""

    def __init__(self, settings: LimiterSettings, table: CounterTable) -> None:
        self._settings = settings
        self._table = table

    def count(self, plan: Plan, outcomes: Sequence[Outcome]) -> None:
        """Count every descriptor of a decided request once.

        Args:
            plan: The request.
            outcomes: One per charge.
        """
        self.count_sources(outcomes)
        for part in plan.parts:
            if part.kind is Kind.UNLIMITED:
                self._table.unmatched += 1
            elif part.kind is Kind.CHECK:
                self._table.refunds_ignored += 1
            elif part.counters is not None:
                self._count_action(part)
            elif part.kind is Kind.CHARGE:
                for side in (part.side, part.other):
                    if side is not None:
                        self._count_side(plan.charges, outcomes, side, part.hits)

    def count_sources(self, outcomes: Sequence[Outcome]) -> None:
        """Count who decided each charge."""
        sources = self._table.sources
        for outcome in outcomes:
            if outcome.source is _MEMORY:
                sources.memory += 1
            else:
                sources.add(outcome.source)

    def _count_action(self, part: Part) -> None:
        counters = part.counters
        assert counters is not None
        counters.hits += part.hits
        if part.kind is Kind.ALLOW:
            counters.allow += 1
        elif part.rejects and not self._settings.shadow_mode:
            counters.deny += 1
        else:
            counters.shadow_over += 1

    def _count_side(self, charges: Sequence[Charge], outcomes: Sequence[Outcome], side: Side, hits: int) -> None:
        counters = side.counters
        places = range(side.first, side.last)
        counters.hits += hits
        if not any(outcomes[place].over for place in places):
            counters.ok += 1
        elif side.shadow or self._settings.shadow_mode:
            counters.shadow_over += 1
        else:
            counters.over += 1
        counters.near_limit_hits += max(
            self._near(charges[place], outcomes[place], threshold)
            for place, threshold in zip(places, side.near, strict=True)
        )

    def _near(self, charge: Charge, outcome: Outcome, threshold: int) -> int:
        if not outcome.over:
            return near_hits(threshold, outcome.before, charge.hits)
        # Only where denied hits are counted did they pass the threshold on their way.
        is_counted = charge.hits and (self._settings.compat or charge.role is Role.PENALTY)
        return near_hits_over(threshold, charge.limit.burst, outcome.before) if is_counted else 0
