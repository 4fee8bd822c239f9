"""Work in bursts, as the process that reads policies does it beside requests."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable

import pytest

from ratelimit_service.sources.bursts import BURST_S, in_bursts

WORK_S = 0.05


def work() -> None:
    """So much processor time."""
    end_s = time.process_time() + WORK_S
    while time.process_time() < end_s:
        pass


def rests(during: Callable[[], None]) -> int:
    """How often the process gave the core away by itself meanwhile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    during()
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before


def test_work_rests_after_each_burst() -> None:
    """At least half as often as bursts fit into it, however busy the machine is; without bursts hardly ever."""

    def in_pieces() -> None:
        with in_bursts():
            work()

    paced, plain = rests(in_pieces), rests(work)

    assert paced >= WORK_S / BURST_S / 2
    assert plain < paced / 2


def test_nothing_of_it_is_left_afterwards() -> None:
    """No timer and no handler, not even when the work failed."""
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(LookupError), in_bursts():
        raise LookupError

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_signal_at_the_very_end_sets_no_timer() -> None:
    """However short the work: thousands of ends, of which many meet a signal, leave no timer behind."""
    left = []
    for count in range(3_000):
        with in_bursts():
            for _ in range(count % 500 * 10):
                pass
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])

    assert not any(left)
