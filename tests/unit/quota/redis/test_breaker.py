"""The breaker by hand-driven time."""

from __future__ import annotations

import pytest

from ratelimit_service.quota.redis.breaker import Breaker, BreakerSettings, BreakerState

SETTINGS = BreakerSettings(failures_in_row=3, window=4, least=4, slow_us=100, first_pause_us=1_000, most_pause_us=4_000)


def breaker(chance: float = 0.0) -> Breaker:
    return Breaker(SETTINGS, lambda: chance)


def opened(chance: float = 0.0) -> Breaker:
    """A breaker that opened at time 0."""
    it = breaker(chance)
    for _ in range(SETTINGS.failures_in_row):
        it.failed(0)
    return it


def test_failures_in_a_row_open_it() -> None:
    """An answer between them begins the row anew."""
    it = breaker()
    for _ in range(2):
        it.answered(1, 0)
        it.answered(1, 0)
        it.answered(1, 0)
        it.failed(0)
    it.answered(1, 0)

    assert (it.state, it.opened) == (BreakerState.CLOSED, 0)
    assert (opened().state, opened().opened) == (BreakerState.OPEN, 1)


def test_slow_answers_open_it_too() -> None:
    """Half of the last round trips being slow is enough; fewer than `least` say nothing."""
    it = breaker()
    for took_us in (101, 100, 101):
        it.answered(took_us, 0)

    assert it.allows(0)

    it.answered(100, 0)

    assert it.state is BreakerState.OPEN


def test_nothing_passes_before_the_pause_is_over() -> None:
    """Then one probe does, and no second one beside it."""
    it = opened()

    assert [it.allows(at) for at in (0, 999, 1_000)] == [False, False, True]

    it.begin(1_000)

    assert (it.state, it.allows(1_000)) == (BreakerState.HALF_OPEN, False)


def test_jitter_takes_up_to_half_off() -> None:
    """Replicas that lost the store together do not come back together."""
    assert [opened(chance).probe_at_us for chance in (0.0, 0.5, 1.0)] == [1_000, 750, 500]


def test_a_probe_that_is_answered_closes_it() -> None:
    """The past is forgotten: it takes a whole row of failures to open it again."""
    it = opened()
    it.begin(1_000)
    it.answered(1, 1_001)
    it.failed(1_002)
    it.failed(1_003)

    assert it.allows(1_003)


@pytest.mark.parametrize("ending", ["failed", "slow"])
def test_a_probe_that_does_not_do_well_doubles_the_pause(ending: str) -> None:
    """Up to the longest pause."""
    it = opened()
    now_us, pauses = 0, []
    for _ in range(4):
        pauses.append(it.probe_at_us - now_us)
        now_us = it.probe_at_us
        it.begin(now_us)
        {"failed": it.failed, "slow": lambda now: it.answered(101, now)}[ending](now_us)

    assert pauses == [1_000, 2_000, 4_000, 4_000]
    assert it.opened == 1


def test_what_was_in_flight_when_it_opened_changes_nothing() -> None:
    """Late failures make the pause no longer, late answers do not close it."""
    it = opened()
    it.failed(500)
    it.answered(1, 500)
    it.answered(101, 500)

    assert (it.state, it.probe_at_us) == (BreakerState.OPEN, 1_000)


def test_beginning_while_closed_is_nothing_special() -> None:
    """Only an open breaker whose pause is over becomes half-open."""
    it = breaker()
    it.begin(0)
    early = opened()
    early.begin(999)

    assert (it.state, early.state) == (BreakerState.CLOSED, BreakerState.OPEN)
