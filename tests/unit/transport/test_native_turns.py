"""Clients that have much to say are read in slices of time, one of them in each round of the loop."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.transport.native_turns import (
    FIRST_BYTES,
    LEAST_BYTES,
    MOST_BYTES,
    SLICE_US,
    Turns,
    next_read_bytes,
)
from support.transports import on_loop


@given(st.integers(LEAST_BYTES, MOST_BYTES), st.integers(0, 10_000_000))
def test_the_next_read_takes_a_slice_at_the_same_cost(read_bytes: int, spent_us: int) -> None:
    """Within its bounds, and never more than twice the last one, since nobody knows what comes."""
    following = next_read_bytes(read_bytes, spent_us)

    assert LEAST_BYTES <= following <= min(MOST_BYTES, 2 * read_bytes)
    if following > LEAST_BYTES:
        assert following * spent_us <= read_bytes * SLICE_US


def test_a_client_whose_bytes_are_cheap_is_soon_read_at_length() -> None:
    """A read that took no time at all doubles the next, up to the most."""
    sizes = [FIRST_BYTES]
    for _ in range(4):
        sizes.append(next_read_bytes(sizes[-1], 0))

    assert sizes == [4_096, 8_192, 16_384, 32_768, 32_768]


@on_loop
async def test_one_client_has_its_turn_in_a_round() -> None:
    """In the order in which they came; who comes again meanwhile stands last; who has ended is passed over."""
    turns, read = Turns(), []

    def reader(name: str, *, comes_back: bool = False):
        def read_on() -> None:
            read.append(name)
            if comes_back and read.count(name) == 1:
                turns.wait(name, read_on)

        return read_on

    turns.wait("a", reader("a", comes_back=True))
    turns.wait("b", reader("b"))
    turns.wait("b", reader("never"))
    turns.wait("gone", reader("gone"))
    turns.wait("c", reader("c"))
    turns.forget("gone")
    rounds = []
    for _ in range(5):
        await asyncio.sleep(0)
        rounds.append(list(read))

    assert rounds == [["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "a"], ["a", "b", "c", "a"]]


@on_loop
async def test_a_turn_that_nobody_waits_for_any_more_does_nothing() -> None:
    """All of them have ended."""
    turns, read = Turns(), []
    turns.wait("a", lambda: read.append("a"))
    turns.forget("a")
    await asyncio.sleep(0)
    turns.wait("b", lambda: read.append("b"))
    await asyncio.sleep(0)

    assert read == ["b"]
