"""Who gets a connection, and who is told that there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from ratelimit_service.quota.redis.faults import LossReason, StoreLost
from ratelimit_service.quota.redis.link import Link
from ratelimit_service.quota.redis.pool import Pool
from ratelimit_service.redis_server.address_model import Endpoint
from support.sockets import RecordingSocket
from support.transports import on_loop

PATIENCE_US = 10_000_000


NewLink = Callable[[], Link]


@pytest.fixture
def link() -> Iterator[NewLink]:
    """Makes connections over sockets that only record; all are closed in the end."""
    made: list[Link] = []

    def new() -> Link:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        socket = RecordingSocket()
        protocol.connection_made(socket)
        made.append(Link(Endpoint("a", 1), asyncio.StreamWriter(socket, protocol, reader, loop)))
        return made[-1]

    yield new
    for each in made:
        each.drop()


def nothing() -> None:
    """Nobody wants to know."""


async def reason_of(pool: Pool, timeout_us: int = PATIENCE_US) -> LossReason:
    with pytest.raises(StoreLost) as caught:
        await pool.acquire(timeout_us)
    return caught.value.reason


@on_loop
async def test_an_empty_pool_says_so_at_once() -> None:
    """Nobody waits for what nobody has."""
    assert await reason_of(Pool(nothing)) is LossReason.ABSENT


@on_loop
async def test_the_last_link_that_came_back_goes_first(link: NewLink) -> None:
    """The warm one is lent again."""
    pool, first, second = Pool(nothing), link(), link()
    pool.add(first)
    pool.add(second)
    taken = await pool.acquire(PATIENCE_US)
    pool.release(taken)

    assert taken is second
    assert await pool.acquire(PATIENCE_US) is second
    assert (len(pool), pool.lent) == (2, 1)


@on_loop
async def test_waiters_are_served_in_order(link: NewLink) -> None:
    """Who came first is given the link that comes back, or a new one."""
    pool, only = Pool(nothing), link()
    pool.add(only)
    await pool.acquire(PATIENCE_US)
    first, second = (asyncio.ensure_future(pool.acquire(PATIENCE_US)) for _ in range(2))
    await asyncio.sleep(0)
    pool.release(only)
    new = link()
    pool.add(new)

    assert [await first, await second] == [only, new]


@on_loop
async def test_waiting_ends(link: NewLink) -> None:
    """A pool that is lent out is no absent one."""
    pool = Pool(nothing)
    pool.add(link())
    taken = await pool.acquire(PATIENCE_US)

    assert await reason_of(pool, 1_000) is LossReason.TIMEOUT

    pool.release(taken)

    assert await pool.acquire(PATIENCE_US) is taken


@on_loop
async def test_a_link_for_one_who_has_given_up_is_not_lost(link: NewLink) -> None:
    """Handed over and cancelled in one turn of the loop: it goes back."""
    pool, only = Pool(nothing), link()
    pool.add(only)
    await pool.acquire(PATIENCE_US)
    waiter = asyncio.ensure_future(pool.acquire(PATIENCE_US))
    await asyncio.sleep(0)
    pool.release(only)
    waiter.cancel()
    await asyncio.wait([waiter])

    assert pool.lent == 0
    assert await pool.acquire(PATIENCE_US) is only


@on_loop
async def test_one_who_has_given_up_is_passed_over(link: NewLink) -> None:
    """A waiter that is gone gets nothing, neither a link nor a refusal."""
    pool, only = Pool(nothing), link()
    pool.add(only)
    await pool.acquire(PATIENCE_US)
    waiter = asyncio.ensure_future(pool.acquire(PATIENCE_US))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    other = asyncio.ensure_future(pool.acquire(PATIENCE_US))
    await asyncio.sleep(0)
    other.cancel()
    await asyncio.wait([other])
    only.drop()
    pool.release(only)

    assert len(pool) == 0


@on_loop
async def test_when_the_last_link_is_dropped_waiters_are_told(link: NewLink) -> None:
    """They need not wait for their deadline."""
    pool, only = Pool(nothing), link()
    pool.add(only)
    await pool.acquire(PATIENCE_US)
    waiter = asyncio.ensure_future(pool.acquire(PATIENCE_US))
    await asyncio.sleep(0)
    only.drop()
    pool.release(only)
    with pytest.raises(StoreLost) as caught:
        await waiter

    assert caught.value.reason is LossReason.ABSENT


@on_loop
async def test_a_dropped_link_leaves_the_others(link: NewLink) -> None:
    """Lent or idle, what is closed is let go of."""
    pool, one, two, three = Pool(nothing), link(), link(), link()
    for each in (one, two, three):
        pool.add(each)
    taken = await pool.acquire(PATIENCE_US)
    taken.drop()
    pool.release(taken)
    two.drop()

    assert await pool.acquire(PATIENCE_US) is one
    assert len(pool) == 1


@on_loop
async def test_a_cleared_pool_drops_what_comes_back(link: NewLink) -> None:
    """What was lent before belongs to the old place."""
    pool, idle, lent = Pool(nothing), link(), link()
    pool.add(idle)
    pool.add(lent)
    await pool.acquire(PATIENCE_US)

    assert pool.clear() == [idle]

    pool.release(lent)

    assert (lent.is_up, len(pool)) == (False, 0)


@on_loop
async def test_links_that_the_other_side_closed_are_told_of(link: NewLink) -> None:
    """Once, when they are found."""
    told: list[str] = []
    pool = Pool(lambda: told.append("closed"))
    for _ in range(2):
        pool.add(link())
    pool.prune()
    one = await pool.acquire(PATIENCE_US)
    pool.release(one)
    one.drop()
    pool.prune()
    pool.prune()

    assert (told, len(pool)) == (["closed"], 1)
