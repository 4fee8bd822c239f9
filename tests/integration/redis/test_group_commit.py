"""The group commit over real servers: exact, in order of arrival, over all slots of a cluster, lost with its node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from ratelimit_service.algorithms.limit import Limit
from ratelimit_service.clock import Clock
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.redis.batch import GroupCommit
from ratelimit_service.quota.redis.topology import Topology
from ratelimit_service.quota.takes import CountedKey, Order, Refund, Reset, Return, Spend, Take
from support.counted_keys import DAYS, FIXED_LIMIT, LIMITS, WHERE, ask, take
from support.redis_nodes import COMMAND_US, address_of, eventually, running_topology
from support.redis_servers import ClusterSetup, RedisServer, running_cluster, running_server
from support.transports import on_loop

PREFIX = b"tg:"
PATIENCE_US = 60_000_000


def commits_over(topology: Topology) -> GroupCommit:
    return GroupCommit(topology, PREFIX, Clock(), command_us=COMMAND_US)


async def carried_out(commits: GroupCommit, orders: Sequence[Order]) -> list[Answered]:
    """What came of orders that were submitted in one turn, in their order."""
    told: dict[int, Answered] = {}
    deadline_us = Clock().read().boot_us + PATIENCE_US
    for index, order in enumerate(orders):
        commits.submit(order, deadline_us, lambda answered, index=index: told.update({index: answered}))  # type: ignore[misc]
    await eventually(lambda: len(told) == len(orders))
    return [told[index] for index in range(len(orders))]


def granted(answers: Sequence[Answered]) -> list[int | None]:
    return [answered.grants[0].granted if answered.grants else None for answered in answers]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSetup]:
    with running_cluster() as setup:
        yield setup


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """A server without a counted key; the boot key stays, or its memory would be another one."""
    shared_server.cli("EVAL", "for _, k in ipairs(redis.call('KEYS', 'tg:*')) do redis.call('DEL', k) end", "0")
    return shared_server


@pytest.mark.parametrize("limit", LIMITS)
@on_loop
async def test_the_first_to_come_get_what_there_is(server: RedisServer, limit: Limit) -> None:
    """Of fifteen takes in one turn ten pass, the first ten, and all were one entry of one batch."""
    async with running_topology(address_of("redis", [server])) as topology:
        commits = commits_over(topology)
        answers = await carried_out(commits, [take(limit)] * 15)

        assert granted(answers) == [1] * 10 + [0] * 5
        assert [answered.grants[0].remaining for answered in answers if answered.grants] == [
            *range(9, -1, -1),
            *[0] * 5,
        ]
        assert all(answered.is_good and answered.sent_us > 0 for answered in answers)
        assert commits.stats.sizes[0] == commits.stats.batches == 1


@on_loop
async def test_every_order_is_carried_out_in_its_turn(server: RedisServer) -> None:
    """Take, debt, refund, return, look and reset of one key, submitted in one turn."""
    async with running_topology(address_of("redis", [server])) as topology:
        commits = commits_over(topology)
        (first,) = await carried_out(commits, [take(FIXED_LIMIT, 4)])
        assert first.grants is not None
        grant = first.grants[0]
        orders: list[Order] = [
            Spend(WHERE, (ask(FIXED_LIMIT, 5),)),
            Refund(WHERE, (ask(FIXED_LIMIT, 2),)),
            Return(WHERE, ask(FIXED_LIMIT, 3), grant.number, grant.epoch, grant.window),
            take(FIXED_LIMIT, 0, least=0),
            Reset(WHERE),
            take(FIXED_LIMIT, 0, least=0),
        ]
        answers = [answered.grants[0] for answered in await carried_out(commits, orders) if answered.grants]

        assert [answer.granted for answer in answers] == [5, 2, 3, 0, 1, 0]
        assert [answer.before for answer in answers] == [4, 7, 4, 4, 0, 0]
        assert [answer.epoch for answer in answers] == [0, 0, 0, 0, 1, 1]


@on_loop
async def test_calendar_windows_are_the_server_s(server: RedisServer) -> None:
    """A limit by the day counts, and its key ends with the day."""
    async with running_topology(address_of("redis", [server])) as topology:
        answers = await carried_out(commits_over(topology), [take(DAYS)] * 6)

        assert granted(answers) == [1] * 5 + [0]
        assert all(0 < answered.grants[0].wait_us <= 25 * 3_600_000_000 for answered in answers if answered.grants)


@on_loop
async def test_orders_are_lost_with_their_server_and_go_on_with_it() -> None:
    """Lost ones are told so; the script is unknown to the new server and is loaded again."""
    with running_server() as server:
        async with running_topology(address_of("redis", [server])) as topology:
            commits = commits_over(topology)
            before = await carried_out(commits, [take(FIXED_LIMIT)])
            await asyncio.to_thread(server.kill)
            during = await carried_out(commits, [take(FIXED_LIMIT)])
            await asyncio.to_thread(server.start)
            await eventually(lambda: commits.is_up(WHERE), topology)
            after = await carried_out(commits, [take(FIXED_LIMIT)])

            assert (granted(before), granted(during), granted(after)) == ([1], [None], [1])


@pytest.mark.slow
@on_loop
async def test_a_batch_goes_over_all_slots_of_a_cluster(cluster: ClusterSetup) -> None:
    """Each key on its node, exact, however many are in one turn."""
    async with running_topology(address_of("redis+cluster", cluster.servers[:1])) as topology:
        commits = commits_over(topology)
        keys = [CountedKey(b"rule", b"\x04%04d" % number) for number in range(200)]
        orders = [Take(key, (ask(FIXED_LIMIT),), 1, 0) for _ in range(12) for key in keys]
        answers = await carried_out(commits, orders)

        assert granted(answers) == [1] * 2_000 + [0] * 400
        assert commits.stats.coalesced > 0
