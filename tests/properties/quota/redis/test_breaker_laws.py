"""Laws of the breaker over any run of answers, failures and time, and mutants that break them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.quota.redis.breaker import Breaker, BreakerSettings, BreakerState

SETTINGS = BreakerSettings(failures_in_row=3, window=6, least=4, slow_us=100, first_pause_us=50, most_pause_us=200)

STEPS = st.lists(
    st.tuples(st.sampled_from(["fail", "slow", "fast"]), st.integers(0, 120), st.floats(0, 1, exclude_max=True)),
    max_size=60,
)


def breaks_a_law(kind: type[Breaker], steps: list[tuple[str, int, float]]) -> str:
    """Drive a breaker as a node does; the first law that it breaks, or nothing."""
    chance = [0.0]
    it = kind(SETTINGS, lambda: chance[0])
    now_us, opened_at_us = 0, 0
    for step, passed_us, luck in steps:
        now_us += passed_us
        chance[0] = luck
        was = it.state
        if not it.allows(now_us):
            if now_us - opened_at_us >= SETTINGS.most_pause_us:
                return "an open breaker is probed within the longest pause"
            continue
        if was is BreakerState.OPEN and now_us - opened_at_us < SETTINGS.first_pause_us // 2:
            return "no probe before half of the first pause"
        it.begin(now_us)
        if was is BreakerState.OPEN and it.allows(now_us):
            return "one probe at a time"
        if step == "fail":
            it.failed(now_us)
        else:
            it.answered(101 if step == "slow" else 1, now_us)
        if step == "fast" and it.state is BreakerState.HALF_OPEN:
            return "a probe's answer ends its being the probe"
        if step == "fast" and was is BreakerState.OPEN and it.state is not BreakerState.CLOSED:
            return "a good probe closes it"
        if step != "fast" and was is BreakerState.OPEN and it.state is not BreakerState.OPEN:
            return "a bad probe opens it again"
        if it.state is BreakerState.OPEN:
            opened_at_us = now_us
    return ""


@given(STEPS)
@example([("fail", 0, 0.0)] * 3 + [("fast", 60, 0.99)])
def test_laws_hold_for_every_run(steps: list[tuple[str, int, float]]) -> None:
    """Probes come one at a time, in bounds; a good one closes, a bad one opens."""
    assert breaks_a_law(Breaker, steps) == ""


class _NeverProbes(Breaker):
    def allows(self, now_us: int) -> bool:
        return self.state is BreakerState.CLOSED


class _ProbesAtOnce(Breaker):
    def allows(self, now_us: int) -> bool:
        return self.state is not BreakerState.HALF_OPEN

    def begin(self, now_us: int) -> None:
        super().begin(max(now_us, self.probe_at_us))


class _LetsEverybodyProbe(Breaker):
    def allows(self, now_us: int) -> bool:
        return self.state is BreakerState.CLOSED or now_us >= self.probe_at_us


class _StaysOpen(Breaker):
    def answered(self, took_us: int, now_us: int) -> None:
        if self.state is BreakerState.CLOSED:
            super().answered(took_us, now_us)


@pytest.mark.parametrize("mutant", [_NeverProbes, _ProbesAtOnce, _LetsEverybodyProbe, _StaysOpen])
def test_laws_catch_breakers_that_are_wrong(mutant: type[Breaker]) -> None:
    """Each planted bug breaks a law on a short run."""
    runs = [
        [("fail", 0, 0.0)] * 3 + [("fast", 0, 0.0), ("fast", 300, 0.0)],
        [("fail", 0, 0.0)] * 3 + [("fast", 60, 0.0)],
    ]

    assert any(breaks_a_law(mutant, run) for run in runs)
