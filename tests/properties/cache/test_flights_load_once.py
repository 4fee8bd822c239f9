"""However waiters come, leave and time out: one load at a time per key, and everybody who stays is answered by one."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.cache.flights import Flights, LoadTimedOut
from support.virtual_time import run_virtually

KEYS: Final = ("a", "b")


class Waiter(msgspec.Struct, frozen=True):
    """One caller, in virtual milliseconds; None: it is not cancelled, it waits for as long as it takes."""

    key: str
    comes_ms: int
    cancelled_after_ms: int | None
    wait_ms: int | None


class Load(msgspec.Struct, frozen=True):
    """How the loads of this run go."""

    takes_ms: int
    fails: bool


waiters = st.lists(
    st.builds(
        Waiter,
        st.sampled_from(KEYS),
        st.integers(0, 6),
        st.none() | st.integers(0, 6),
        st.none() | st.integers(1, 6),
    ),
    min_size=1,
    max_size=8,
)
loads = st.builds(Load, st.integers(0, 6), st.booleans())


class Run:
    """What happened."""

    def __init__(self) -> None:
        self.under_way = dict.fromkeys(KEYS, 0)
        self.most_at_once = 0
        self.outcomes: list[str] = []


async def _play(flights: Flights[str], callers: list[Waiter], load: Load) -> Run:
    run = Run()

    async def source(key: str) -> str:
        run.under_way[key] += 1
        run.most_at_once = max(run.most_at_once, *run.under_way.values())
        try:
            await asyncio.sleep(load.takes_ms / 1000)
            if load.fails:
                raise OSError(key)
        finally:
            run.under_way[key] -= 1
        return key

    async def call(waiter: Waiter) -> str:
        await asyncio.sleep(waiter.comes_ms / 1000)
        wait_us = None if waiter.wait_ms is None else waiter.wait_ms * 1000
        return await flights.fly(waiter.key, lambda: source(waiter.key), wait_us=wait_us)

    tasks = [asyncio.create_task(call(waiter)) for waiter in callers]
    for task, waiter in zip(tasks, callers, strict=True):
        if waiter.cancelled_after_ms is not None:
            after_s = (waiter.comes_ms + waiter.cancelled_after_ms) / 1000
            asyncio.get_running_loop().call_later(after_s, task.cancel)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    run.outcomes = [each if isinstance(each, str) else type(each).__name__ for each in results]
    await asyncio.sleep(1)
    await flights.close()
    return run


def _allowed(waiter: Waiter, load: Load) -> set[str]:
    """How a call may end."""
    answered = {"OSError"} if load.fails else {waiter.key}
    late = {"LoadTimedOut"} if waiter.wait_ms is not None and waiter.wait_ms <= load.takes_ms else set()
    cancelled = {"CancelledError"} if waiter.cancelled_after_ms is not None else set()
    return answered | late | cancelled


@given(waiters, loads)
@example([Waiter("a", 0, 1, None), *[Waiter("a", 0, None, None)] * 9], Load(5, fails=False))
def test_one_load_at_a_time_and_nobody_is_cancelled_by_another(callers: list[Waiter], load: Load) -> None:
    """No key is ever loaded twice at once; a caller ends by its own cancellation, its own patience, or the load."""
    flights: Flights[str] = Flights()
    run = run_virtually(_play(flights, callers, load))

    assert run.most_at_once <= 1
    assert len(flights) == 0
    for waiter, outcome in zip(callers, run.outcomes, strict=True):
        assert outcome in _allowed(waiter, load)


class _SharedTask(Flights[str]):
    """The bug of others: waiters await the task itself."""

    async def land(self, key: str, flight: asyncio.Task[str], *, wait_us: int | None = None) -> str:
        return await flight


class _NoSharing(Flights[str]):
    """The bug of none: every caller loads."""

    def begin(self, key, load):  # type: ignore[no-untyped-def]
        return asyncio.get_running_loop().create_task(self._fly(key, load))


@pytest.mark.parametrize("broken", [_SharedTask, _NoSharing])
def test_the_law_rejects_flights_that_share_cancellation_or_share_nothing(broken: type[Flights[str]]) -> None:
    """Both planted bugs break the law on the ten waiters of whom one is cancelled."""
    callers = [Waiter("a", 0, 1, None), *[Waiter("a", 0, None, None)] * 9]
    load = Load(5, fails=False)
    run = run_virtually(_play(broken(), callers, load))
    answered = all(outcome in _allowed(*each) for outcome, each in zip(run.outcomes, ((w, load) for w in callers)))  # noqa: B905

    assert not (answered and run.most_at_once <= 1)


def test_a_load_that_hangs_is_given_up_and_the_next_caller_begins_anew() -> None:
    """A flight past its deadline ends with an error; its key is free again."""

    async def run() -> tuple[str, str, int]:
        flights: Flights[str] = Flights(flight_us=1_000_000)

        async def hang() -> str:
            await asyncio.Event().wait()
            return "never"

        async def quick() -> str:
            return "value"

        with pytest.raises(LoadTimedOut) as caught:
            await flights.fly("k", hang)
        return caught.value.key, await flights.fly("k", quick), flights.timed_out

    assert run_virtually(run()) == ("k", "value", 1)


def test_a_timeout_of_the_loader_itself_is_the_loaders_error() -> None:
    """A loader that raises TimeoutError is not taken for a flight past its deadline."""

    async def run() -> int:
        flights: Flights[str] = Flights()

        async def slow() -> str:
            raise TimeoutError("upstream")

        with pytest.raises(TimeoutError, match="upstream"):
            await flights.fly("k", slow)
        return flights.timed_out

    assert run_virtually(run()) == 0


def test_closing_ends_flights_and_their_waiters() -> None:
    """Waiters of a cancelled flight get an error of the cache, not a cancellation that nobody asked for."""

    async def run() -> str:
        flights: Flights[str] = Flights()

        async def hang() -> str:
            await asyncio.Event().wait()
            return "never"

        waiting = asyncio.create_task(flights.fly("k", hang))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await flights.close()
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        return type(result).__name__

    assert run_virtually(run()) == "LoadTimedOut"


def test_a_forgotten_flight_serves_its_waiters_and_nobody_new() -> None:
    """After an invalidation the next caller begins anew; who waited gets what was under way."""

    async def run() -> tuple[str, str, int]:
        flights: Flights[str] = Flights()
        answers = iter(("old", "new"))

        async def load() -> str:
            answer = next(answers)
            await asyncio.sleep(1)
            return answer

        first = asyncio.create_task(flights.fly("k", load))
        await asyncio.sleep(0.5)
        flights.forget("k")
        second = await flights.fly("k", load)
        return await first, second, flights.begun

    assert run_virtually(run()) == ("old", "new", 2)
