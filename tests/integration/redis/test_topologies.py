"""Sentinel and Cluster: the master is found, followed after a failover, and slots are where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ratelimit_service.quota.redis.faults import LossReason, ScriptError
from ratelimit_service.quota.redis.topology import Topology
from ratelimit_service.redis_server.address import parse_store_url
from ratelimit_service.redis_server.slots import SLOTS, slot_of
from support.redis_nodes import (
    Told,
    address_of,
    eventually,
    get,
    increment,
    lost,
    node_of,
    ready,
    run,
    run_until_answered,
    running_topology,
)
from support.redis_servers import (
    ClusterSetup,
    RedisOptions,
    RedisServer,
    SentinelSetup,
    running_cluster,
    running_sentinels,
    running_server,
)
from support.transports import on_loop

pytestmark = pytest.mark.slow

SECURE = RedisOptions(user="app", password="s3cret", tls=True, client_certs=True, dead_after_ms=1_000)
LOGIN = "app:s3cret@"


@pytest.fixture(scope="module")
def sentinels() -> Iterator[SentinelSetup]:
    """A primary, a replica, three sentinels; tests may swap the two."""
    with running_sentinels() as setup:
        yield setup


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ClusterSetup]:
    """Three masters; tests may move slots and swap a master and its replica, if they swap them back."""
    with running_cluster() as setup:
        yield setup


@pytest.fixture
def cluster(shared_cluster: ClusterSetup) -> ClusterSetup:
    """The shared cluster, empty."""
    for slot in (0, SLOTS // 2, SLOTS - 1):
        shared_cluster.owner_of(slot).cli("FLUSHALL")
    return shared_cluster


def key_at(server: RedisServer, cluster: ClusterSetup, *, but: frozenset[bytes] = frozenset()) -> bytes:
    """A key whose slot a server owns."""
    names = (b"k%d" % number for number in range(100_000))
    return next(name for name in names if name not in but and cluster.owner_of(slot_of(name)) is server)


def port_of(topology: Topology, key: bytes = b"key") -> int:
    endpoint = node_of(topology, key).endpoint
    assert endpoint is not None
    return endpoint.port


# Sentinel.


@on_loop
async def test_the_master_is_found_by_its_name(sentinels: SentinelSetup) -> None:
    """One sentinel that is there is enough, and the others are learnt from it."""
    address = address_of("redis+sentinel", sentinels.sentinels[:1], path="/main")
    async with running_topology(address) as topology:
        answered = await run(topology, increment(b"found"))

        assert port_of(topology) == sentinels.primary().port
        assert answered.replies == [[1, b""]]
        assert topology.slot_of(b"key") == topology.slot_of(b"other") == 0


@on_loop
async def test_a_failover_is_followed_and_is_a_new_memory(sentinels: SentinelSetup) -> None:
    """The replica that took over is asked, and the boot value is another one."""
    told = Told()
    async with running_topology(address_of("redis+sentinel", sentinels.sentinels, path="/main"), told) as topology:
        before = port_of(topology)
        new = await asyncio.to_thread(sentinels.fail_over)
        await eventually(lambda: port_of(topology) == new.port)
        await ready(topology)
        answered = await run_until_answered(topology, increment(b"after"))

    assert before != new.port
    assert answered.same_memory
    assert len(told.boots) >= 1


@on_loop
async def test_a_name_that_sentinels_do_not_know_is_said_so(sentinels: SentinelSetup) -> None:
    """Every sentinel's word is shown."""
    address = address_of("redis+sentinel", sentinels.sentinels, path="/other")
    async with running_topology(address, wait=False) as topology:
        await eventually(lambda: "No such master" in topology.problems()[0])
        absent = await lost(topology, get(b"a"))

    assert absent.reason is LossReason.ABSENT


@on_loop
async def test_sentinels_that_are_not_there_are_said_so() -> None:
    """The start does not fail."""
    address = parse_store_url("redis+sentinel://127.0.0.1:1/main")
    async with running_topology(address, wait=False) as topology:
        await eventually(lambda: "disconnected" in topology.problems()[0])

        assert topology.problems()[1] == "master: not connected yet"


@on_loop
async def test_a_dead_master_is_replaced_over_tls_with_logins() -> None:
    """Killed, not asked: the sentinels find out, and so do we; servers and sentinels ask for user and password."""
    with running_sentinels(SECURE) as setup:
        address = address_of(
            "redis+sentinel",
            setup.sentinels,
            login=LOGIN,
            path="/main",
            sentinel_user="app",
            sentinel_password="s3cret",
        )
        told = Told()
        async with running_topology(address, told) as topology:
            old = setup.primary()
            old.kill()
            await eventually(lambda: port_of(topology) != old.port)
            answered = await run_until_answered(topology, increment(b"a"))

    assert answered.replies == [[1, b""]]
    assert len(told.boots) >= 1


# Cluster.


@on_loop
async def test_every_slot_has_a_node_and_every_node_a_boot_key_of_its_own(cluster: ClusterSetup) -> None:
    """One member that is there is enough; boot keys are in slots that their nodes own."""
    told = Told()
    async with running_topology(address_of("redis+cluster", cluster.servers[4:5]), told) as topology:
        nodes = topology.nodes()

        assert len(nodes) == 3
        assert len({node.boot for node in nodes}) == 3
        assert all(topology.node_for(node.boot_key) is node for node in nodes)
        assert all(topology.node_for(b"k%d" % number) in nodes for number in range(100))
        assert told.boots == []


@on_loop
async def test_keys_are_counted_by_their_owners(cluster: ClusterSetup) -> None:
    """The server that owns the slot has the key."""
    async with running_topology(address_of("redis+cluster", cluster.servers[:2])) as topology:
        for server in {cluster.owner_of(slot) for slot in (0, 8_000, SLOTS - 1)}:
            key = key_at(server, cluster)
            await run(topology, increment(key), key=key)

            assert server.cli("GET", key.decode()) == "1"


@on_loop
async def test_a_slot_that_is_moved_is_followed_within_the_call(cluster: ClusterSetup) -> None:
    """The count goes on at the new owner, and nobody is asked twice for the next one."""
    async with running_topology(address_of("redis+cluster", cluster.servers)) as topology:
        source, target = cluster.owner_of(100), cluster.owner_of(SLOTS - 100)
        key = key_at(source, cluster)
        await run(topology, increment(key), key=key)
        asked = node_of(topology, key)
        cluster.move_slot(slot_of(key), target)
        moved = await asked.run([increment(key)], 10_000_000)
        await eventually(lambda: port_of(topology, key) == target.port)
        after = await run(topology, increment(key), key=key)

    assert moved.replies == [[2, b""]]
    assert moved.same_memory
    assert after.replies == [[3, b""]]
    assert asked.stats().redirects == 1


@on_loop
async def test_a_slot_that_is_half_moved_is_asked_for_at_both(cluster: ClusterSetup) -> None:
    """A key that is not at the owner any more, or not yet, is counted at the target."""
    async with running_topology(address_of("redis+cluster", cluster.servers)) as topology:
        source, target = cluster.owner_of(200), cluster.owner_of(SLOTS - 200)
        key = key_at(source, cluster)
        old, new = b"{%b}old" % key, b"{%b}new" % key
        await run(topology, increment(old), key=key)
        cluster.begin_move(slot_of(key), target)
        answered = await run(topology, increment(old), increment(new), key=key)
        again = await run(topology, increment(new), key=key)
        cluster.move_slot(slot_of(key), target)

    assert answered.replies == [[2, b""], [1, b""]]
    assert again.replies == [[2, b""]]
    assert answered.same_memory


@on_loop
async def test_a_boot_key_whose_slot_moves_away_is_made_anew(cluster: ClusterSetup) -> None:
    """It is put where its node can hold it; until then nothing that the node grants is trusted."""
    told = Told()
    async with running_topology(address_of("redis+cluster", cluster.servers), told) as topology:
        source, target = cluster.owner_of(300), cluster.owner_of(SLOTS - 300)
        key = key_at(source, cluster)
        node = node_of(topology, key)
        slot = slot_of(node.boot_key)
        cluster.move_slot(slot, target)
        unsure = await run(topology, increment(key), key=key)
        await eventually(lambda: slot_of(node.boot_key) != slot and node in told.boots, topology)
        await ready(topology)
        sure = await run_until_answered(topology, increment(key), key=key)
        home = topology.node_for(node.boot_key)
    cluster.move_slot(slot, source)

    assert not unsure.same_memory
    assert sure.same_memory
    assert home is node


@on_loop
async def test_a_call_whose_new_owner_is_lost_stays_an_error(cluster: ClusterSetup) -> None:
    """The others of the pipeline are answered."""
    async with running_topology(address_of("redis+cluster", cluster.servers)) as topology:
        source, target = cluster.owner_of(400), cluster.owner_of(SLOTS - 400)
        key = key_at(source, cluster)
        elsewhere = next(node for node in topology.nodes() if node.endpoint.port == target.port)
        await elsewhere.close()
        cluster.begin_move(slot_of(key), target)
        answered = await run(topology, increment(key), get(node_of(topology, key).boot_key), key=key)
        cluster.move_slot(slot_of(key), target)

    assert isinstance(answered.replies[0], ScriptError)
    assert answered.replies[0].code == "ASK"
    assert answered.replies[1] is not None
    assert f"127.0.0.1:{target.port} " in repr(elsewhere)


@on_loop
async def test_a_failover_in_a_cluster_is_followed_and_told(cluster: ClusterSetup) -> None:
    """The replica that took the slots over is a node, its memory is a new one, the old master is none any more."""
    told = Told()
    async with running_topology(address_of("redis+cluster", cluster.servers), told) as topology:
        old, replica = cluster.servers[0], cluster.servers[3]
        key = key_at(old, cluster)
        await run(topology, increment(key), key=key)
        cluster.fail_over(replica)
        answered = await run_until_answered(topology, increment(key), key=key)
        await eventually(lambda: port_of(topology, key) == replica.port)
        await ready(topology)
        ports = {node.endpoint.port for node in topology.nodes()}
    cluster.fail_over(old)

    assert answered.replies == [[2, b""]]
    assert old.port not in ports
    assert replica.port in {node.endpoint.port for node in told.boots}


@on_loop
async def test_a_script_for_two_slots_is_its_own_fault(cluster: ClusterSetup) -> None:
    """CROSSSLOT is the caller's error, not a loss."""
    async with running_topology(address_of("redis+cluster", cluster.servers)) as topology:
        wrong = increment(b"a")
        crossing = type(wrong)(wrong.script, (b"a", b"b"), wrong.args)
        answered = await run(topology, crossing, key=b"a")

    assert isinstance(answered.replies[0], ScriptError)
    assert answered.replies[0].code == "CROSSSLOT"


@on_loop
async def test_a_single_server_is_no_cluster() -> None:
    """Redis without cluster mode is refused by name."""
    with running_server() as server:
        address = address_of("redis+cluster", [server])
        async with running_topology(address, wait=False) as topology:
            await eventually(lambda: "is it a cluster?" in topology.problems()[0])

            assert topology.node_for(b"a") is None


@on_loop
async def test_a_member_of_a_cluster_is_no_single_server(cluster: ClusterSetup) -> None:
    """What is elsewhere stays an error: the address has to say cluster."""
    first = cluster.owner_of(0)
    elsewhere = key_at(cluster.owner_of(SLOTS - 1), cluster)
    async with running_topology(address_of("redis", [first]), wait=False) as topology:
        await eventually(lambda: node_of(topology).ready or bool(node_of(topology).stats().connect_failures))
        node = node_of(topology)
        replies = await node.ask([get(elsewhere)], 10_000_000) if node.ready else [ScriptError("MOVED", "")]

    assert isinstance(replies[0], ScriptError)
    assert replies[0].code == "MOVED"


@on_loop
async def test_a_dead_master_of_a_cluster_is_replaced_over_tls_with_logins() -> None:
    """Its replica takes over, the other nodes go on."""
    with running_cluster(SECURE) as setup:
        address = address_of("redis+cluster", setup.servers[2:3], login=LOGIN)
        told = Told()
        async with running_topology(address, told) as topology:
            dead = setup.servers[0]
            key = key_at(dead, setup)
            before = port_of(topology, key)
            dead.kill()
            await eventually(lambda: topology.node_for(key) is not None and port_of(topology, key) != before)
            await ready(topology)
            answered = await run_until_answered(topology, increment(key), key=key)

    assert answered.replies == [[1, b""]]
    assert setup.servers[3].port in {node.endpoint.port for node in told.boots}
