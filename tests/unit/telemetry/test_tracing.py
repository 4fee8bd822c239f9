"""Which calls are followed, and what is noted of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from ratelimit_service.limiter.traced_store import TracedStore
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.quota.store import Charge, Outcome
from ratelimit_service.telemetry.tracing import CallTrace, Tracing, is_sampled
from support.clocks import ManualClock
from support.deferred_store import DeferredStore
from support.schedulers import ManualScheduler

SAMPLED = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("traceparent", "follows"),
    [
        (SAMPLED, True),
        (SAMPLED[:-2] + b"00", False),
        (SAMPLED[:-2] + b"03", True),
        (b"cc" + SAMPLED[2:] + b"-what-a-later-version-adds", True),
        (b"ff" + SAMPLED[2:], False),
        (SAMPLED.upper(), False),
        (SAMPLED.replace(b"4bf92f3577b34da6a3ce929d0e0e4736", b"0" * 32), False),
        (SAMPLED.replace(b"00f067aa0ba902b7", b"0" * 16), False),
        (b"", False),
        (None, False),
    ],
)
def test_the_caller_decides_what_is_followed(traceparent: bytes | None, follows: bool) -> None:
    """By the flag of a well-formed `traceparent` (W3C Trace Context, §3.2)."""
    assert is_sampled(traceparent) is follows


@given(st.binary(max_size=80))
def test_any_bytes_say_no_and_nothing_worse(junk: bytes) -> None:
    """A client of Envoy may send anything."""
    assert is_sampled(junk) in {False, True}


class Kept:
    """A sink that keeps what it takes."""

    def __init__(self) -> None:
        self.taken: list[tuple[CallTrace, bytes, object]] = []

    def take(self, trace: CallTrace, body: bytes, answer: object) -> None:
        self.taken.append((trace, body, answer))

    def close(self) -> None:
        self.taken.clear()


def ticking() -> Tracing:
    """Traces by a clock that moves with every reading."""
    readings = iter(range(1, 100))
    return Tracing(Kept(), lambda: next(readings))


CHARGE = Charge(b"id", Limit(Algorithm.FIXED_WINDOW, 5, 60_000_000, 5), b"key", 1)


@pytest.mark.parametrize("deferred", [False, True])
def test_a_store_is_noted_from_the_question_to_the_answer(deferred: bool) -> None:
    """At once or later; what nobody follows passes through."""
    clock, scheduler, tracing = ManualClock(), ManualScheduler(), ticking()
    memory = MemoryStore(clock=clock, call_soon=scheduler.call_soon)
    store = TracedStore(DeferredStore(memory, scheduler.call_soon) if deferred else memory, tracing)
    plain, noted = list[Outcome](), list[Outcome]()

    def charge(into: list[Outcome]) -> None:
        now: Instant = clock.read()
        outcomes = store.charge([CHARGE], now)
        if outcomes is None:
            store.charge_later([CHARGE], now.boot_us + 1, into.extend)
        else:
            into.extend(outcomes)

    charge(plain)
    trace = tracing.begin(SAMPLED)
    charge(noted)
    tracing.current = None
    scheduler.run()

    assert [outcome.before for outcome in (*plain, *noted)] == [0, 1]
    assert 0 < trace.began_ns < trace.matched_ns < trace.outcomes_ns
    assert (trace.sources, trace.degraded) == (("memory",), False)


def test_what_else_a_store_does_is_the_inner_store_s() -> None:
    """Refunds are noted too, of the call that gives back."""
    clock, tracing = ManualClock(), ticking()
    store = TracedStore(MemoryStore(clock=clock, call_soon=ManualScheduler().call_soon), tracing)
    store.apply({})
    store.charge([CHARGE], clock.read())
    trace = tracing.begin(SAMPLED)
    seen: list[Sequence[Outcome]] = []
    store.refund([CHARGE], clock.read(), seen.append)
    tracing.current = None
    store.charge([CHARGE], clock.read())
    store.peek([CHARGE], clock.read(), seen.append)
    was_there: list[bool | None] = []
    store.reset(b"id", b"key", was_there.append)
    listed: list[object] = []
    store.usage("none", 0, listed.append)

    assert trace.outcomes_ns > trace.matched_ns > 0
    assert [outcomes[0].before for outcomes in seen] == [0, 1]
    assert was_there == [True]
    assert listed == [[]]
    assert store.bound("rule") == 0
