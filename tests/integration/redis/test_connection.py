"""One Redis server: round trips, what ends them, how its absence and its loss of memory are noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ratelimit_service.quota.redis.boot import boot_began_us
from ratelimit_service.quota.redis.breaker import BreakerState
from ratelimit_service.quota.redis.calls import Command
from ratelimit_service.quota.redis.faults import LossReason, ScriptError, StoreLost
from ratelimit_service.quota.redis.node_stats import ROUND_TRIP_BOUNDS_US
from ratelimit_service.redis_server.address import RedisAddress, parse_store_url
from support.fault_proxy import FaultProxy, Way
from support.redis_nodes import (
    INCREMENT,
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
from support.redis_servers import RedisOptions, RedisServer, running_server
from support.transports import on_loop

SECRET = "s3cret/@:#"
LOGIN = "app:s3cret%2F%40%3A%23@"


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """A server that tests leave running."""
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """The shared server, empty."""
    shared.cli("FLUSHALL")
    shared.cli("SCRIPT", "FLUSH")
    shared.cli("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
    return shared


@pytest.fixture
def own() -> Iterator[RedisServer]:
    """A server that a test may kill."""
    with running_server() as server:
        yield server


# Round trips.


@on_loop
async def test_calls_are_answered_in_order_with_the_boot_value(server: RedisServer) -> None:
    """One pipeline; the script is loaded on the way, once."""
    async with running_topology(address_of("redis", [server])) as topology:
        first = await run(topology, increment(b"a", 2, b"x"), increment(b"b"), increment(b"a", 3))
        second = await run(topology, increment(b"a"))
        stats = node_of(topology).stats()

    assert first.replies == [[2, b"x"], [1, b""], [5, b""]]
    assert second.replies == [[6, b""]]
    assert first.same_memory
    assert second.same_memory
    assert first.boot == second.boot == node_of(topology).boot
    assert (stats.script_loads, stats.round_trips, sum(stats.round_trip_buckets)) == (1, 2, 2)
    assert len(stats.round_trip_buckets) == len(ROUND_TRIP_BOUNDS_US) + 1


@on_loop
async def test_a_calls_own_error_leaves_the_others_alone(server: RedisServer) -> None:
    """It is a value among the replies, and the connection stays."""
    async with running_topology(address_of("redis", [server])) as topology:
        await run(topology, Command(("SET", "text", "x")))
        answered = await run(topology, increment(b"a"), increment(b"text"), Command(("NONSENSE",)), increment(b"a"))
        stats = node_of(topology).stats()

    assert [answered.replies[0], answered.replies[3]] == [[1, b""], [2, b""]]
    assert isinstance(answered.replies[1], ScriptError)
    assert isinstance(answered.replies[2], ScriptError)
    assert (answered.replies[2].code, stats.lost) == ("ERR", {})
    assert stats.connects <= stats.pool_size


@on_loop
async def test_keys_and_values_are_bytes(server: RedisServer) -> None:
    """Nothing is decoded on the way."""
    key = bytes(range(256))
    async with running_topology(address_of("redis", [server])) as topology:
        answered = await run(topology, Command(("SET", key, key)), get(key), get(b"none"))

    assert answered.replies == [b"OK", key, None]


@on_loop
async def test_plain_calls_need_no_boot_key(server: RedisServer) -> None:
    """`ask` is for what grants nothing."""
    async with running_topology(address_of("redis", [server])) as topology:
        server.cli("FLUSHALL")

        assert await node_of(topology).ask([increment(b"a")], 10_000_000) == [[1, b""]]


@on_loop
async def test_more_round_trips_than_connections_wait_their_turn(server: RedisServer) -> None:
    """All are answered, by no more connections than the pool has."""
    async with running_topology(address_of("redis", [server], pool_size="2")) as topology:
        await asyncio.gather(*(run(topology, increment(b"a")) for _ in range(20)))
        answered = await run(topology, get(b"a"))
        stats = node_of(topology).stats()

    assert answered.replies == [b"20"]
    assert stats.connects <= 2


@on_loop
async def test_a_cancelled_round_trip_leaves_no_reply_for_the_next(server: RedisServer) -> None:
    """Its connection is dropped: the next reply is the next call's."""
    async with running_topology(address_of("redis", [server], pool_size="1")) as topology:
        blocked = asyncio.ensure_future(run(topology, Command(("BLPOP", "nothing", 0))))
        await asyncio.sleep(0.05)
        blocked.cancel()
        await asyncio.wait([blocked])
        answered = await run_until_answered(topology, increment(b"a", 7))

    assert answered.replies == [[7, b""]]


@on_loop
async def test_databases_and_prefixes_keep_stores_apart(server: RedisServer) -> None:
    """Another database is another memory; the boot key carries the prefix."""
    async with (
        running_topology(address_of("redis", [server], path="/1")) as one,
        running_topology(address_of("redis", [server], key_prefix="b:")) as two,
    ):
        await run(one, increment(b"a"))
        answered = await run(two, get(b"a"))

        assert answered.replies == [None]
        assert server.cli("KEYS", "*") == node_of(two).boot_key.decode() == "b:{0}boot"


# What ends them.


@on_loop
async def test_a_late_answer_is_lost_and_never_read(server: RedisServer) -> None:
    """The call is over at its deadline; the next one gets its own reply."""
    async with FaultProxy(server.port) as proxy, running_topology(_through(proxy)) as topology:
        await run(topology, increment(b"warm"))
        proxy.hold(Way.TO_CLIENT)
        loss = await lost(topology, increment(b"a", 1, b"late"), timeout_us=50_000)
        proxy.heal()
        answered = await run_until_answered(topology, increment(b"a", 1, b"new"))

    assert loss.reason is LossReason.TIMEOUT
    assert answered.replies == [[2, b"new"]]


@on_loop
async def test_a_cut_connection_is_lost_and_made_again(server: RedisServer) -> None:
    """What the server resets is noticed at once."""
    async with FaultProxy(server.port) as proxy, running_topology(_through(proxy)) as topology:
        blocked = asyncio.ensure_future(run(topology, Command(("BLPOP", "nothing", 0))))
        await asyncio.sleep(0.05)
        proxy.drop_connections()
        with pytest.raises(StoreLost) as caught:
            await blocked
        answered = await run_until_answered(topology, increment(b"a"))
        stats = node_of(topology).stats()

    assert caught.value.reason is LossReason.DISCONNECTED
    assert answered.replies == [[1, b""]]
    assert stats.lost[LossReason.DISCONNECTED] == 1


@on_loop
async def test_an_idle_node_notices_that_its_server_is_gone(server: RedisServer) -> None:
    """Without any traffic it says so, and when it is back."""
    told = Told()
    async with FaultProxy(server.port) as proxy, running_topology(_through(proxy), told) as topology:
        proxy.refuse()
        await eventually(lambda: not node_of(topology).ready)
        problems = topology.problems()
        proxy.heal()
        await ready(topology)
        stats = node_of(topology).stats()

    assert "disconnected" in problems[0]
    assert told.turns[:3] == [True, False, True]
    assert stats.degraded_us > 0


@on_loop
async def test_an_idle_node_notices_that_its_server_stands_still(server: RedisServer) -> None:
    """A connection that is open and silent is no server."""
    async with FaultProxy(server.port) as proxy:
        address = _through(proxy, command_timeout="50ms", connect_timeout="100ms")
        async with running_topology(address, wait=False) as topology:
            await eventually(lambda: node_of(topology).ready, topology)
            proxy.hold()
            await eventually(lambda: not node_of(topology).ready)
            proxy.heal()
            await eventually(lambda: node_of(topology).ready, topology)


@on_loop
async def test_a_dragging_server_is_left_alone_until_it_is_quick(server: RedisServer) -> None:
    """Deadlines that are missed open the breaker; then nothing is asked, and the node probes by itself."""
    async with FaultProxy(server.port) as proxy, running_topology(_through(proxy)) as topology:
        node = node_of(topology)
        proxy.delay_seconds = 0.05
        while node.stats().breaker is BreakerState.CLOSED:
            await eventually(lambda: node.stats().links > 0)
            await lost(topology, increment(b"a"), timeout_us=10_000)
        loss = await lost(topology, increment(b"a"))
        is_available = node.available(0)
        proxy.heal()
        await eventually(lambda: node.available(0), topology)
        answered = await run_until_answered(topology, increment(b"b"))

    assert loss.reason in {LossReason.BREAKER, LossReason.ABSENT}
    assert not is_available
    assert answered.replies == [[1, b""]]
    assert node.stats().breaker_opened >= 1


@on_loop
async def test_a_full_server_is_lost_as_full(server: RedisServer) -> None:
    """Out of memory is no fault of the call; the connection stays."""
    async with running_topology(address_of("redis", [server])) as topology:
        await run(topology, increment(b"warm"))
        server.cli("CONFIG", "SET", "maxmemory", "1")
        plain = await lost(topology, Command(("SET", "a", "b")))
        server.cli("CONFIG", "SET", "maxmemory", "0")
        stats = node_of(topology).stats()

    assert plain.reason is LossReason.OOM
    assert stats.connects <= stats.pool_size


@on_loop
async def test_a_server_that_becomes_a_replica_is_lost_as_read_only(own: RedisServer) -> None:
    """Its connections are dropped, and taken up again when it is a master."""
    async with running_topology(address_of("redis", [own])) as topology:
        await run(topology, increment(b"warm"))
        own.cli("REPLICAOF", "127.0.0.1", "1")
        loss = await lost(topology, increment(b"a"))
        await eventually(lambda: "is a replica" in str(topology.problems()))
        own.cli("REPLICAOF", "NO", "ONE")
        await ready(topology)
        answered = await run_until_answered(topology, increment(b"a"))

    assert loss.reason is LossReason.READONLY
    assert answered.replies == [[1, b""]]


@on_loop
async def test_a_closed_topology_answers_nothing(server: RedisServer) -> None:
    """A call after the end is lost."""
    async with running_topology(address_of("redis", [server])) as topology:
        pass

    assert (await lost(topology, increment(b"a"))).reason is LossReason.ABSENT


# Its absence.


@on_loop
async def test_a_start_without_a_server_says_so_and_recovers(own: RedisServer) -> None:
    """Nothing fails; the node is there when the server is."""
    own.kill()
    async with running_topology(address_of("redis", [own]), wait=False) as topology:
        await eventually(lambda: node_of(topology).stats().connect_failures > 0)
        problems = topology.problems()
        absent = await lost(topology, increment(b"a"))
        own.start()
        await ready(topology)
        answered = await run(topology, increment(b"a"))

    assert own.endpoint in problems[0]
    assert absent.reason is LossReason.ABSENT
    assert answered.replies == [[1, b""]]


# Its memory.


@on_loop
async def test_two_replicas_see_one_memory(server: RedisServer) -> None:
    """The first makes the boot value, the other finds it."""
    told = Told()
    address = address_of("redis", [server])
    async with running_topology(address, told) as one, running_topology(address, told) as two:
        boots = {node_of(one).boot, node_of(two).boot}

    assert len(boots) == 1
    assert told.boots == []


@on_loop
async def test_a_flushed_server_is_another_memory(server: RedisServer) -> None:
    """The batch that finds no boot key is not to be trusted; then there is a new value, and it is told once."""
    told = Told()
    async with running_topology(address_of("redis", [server]), told) as topology:
        await run(topology, increment(b"warm"))
        before = node_of(topology).boot
        server.cli("FLUSHALL")
        flushed = await run(topology, increment(b"a"))
        await eventually(lambda: len(told.boots) == 1)
        after = await run(topology, increment(b"a"))

    assert (flushed.replies, flushed.boot, flushed.same_memory) == ([[1, b""]], None, False)
    assert (after.replies, after.same_memory) == ([[2, b""]], True)
    assert after.boot not in {None, before}
    assert node_of(topology).stats().new_boots == 1


@on_loop
async def test_what_another_replica_renewed_is_another_memory_too(server: RedisServer) -> None:
    """A boot value that is not the known one is as good as none."""
    told = Told()
    async with running_topology(address_of("redis", [server]), told) as topology:
        run_id = node_of(topology).facts.run_id
        server.cli("SET", node_of(topology).boot_key.decode(), f"{'0' * 32}:{run_id}:1700000000000000")
        answered = await run(topology, increment(b"a"))
        await eventually(lambda: len(told.boots) == 1)

        assert not answered.same_memory
        assert boot_began_us(node_of(topology).boot or b"") == 1_700_000_000_000_000


@on_loop
async def test_a_restarted_server_is_another_memory(own: RedisServer) -> None:
    """Told when it is connected to again, before anything is counted."""
    told = Told()
    async with running_topology(address_of("redis", [own]), told) as topology:
        own.kill()
        own.start()
        await eventually(lambda: len(told.boots) == 1)
        answered = await run_until_answered(topology, increment(b"a"))

    assert answered.same_memory


@on_loop
async def test_a_server_that_kept_its_data_over_a_restart_is_another_memory(own: RedisServer) -> None:
    """It may have lost the last second: the run id that the value was made under tells."""
    told = Told()
    async with running_topology(address_of("redis", [own]), told) as topology:
        own.cli("SET", "kept", "1")
        own.cli("SAVE")
        own.kill()
        own.start()
        await eventually(lambda: len(told.boots) == 1)
        answered = await run_until_answered(topology, get(b"kept"))

    assert answered.replies == [b"1"]


@on_loop
async def test_a_lost_script_is_loaded_again(server: RedisServer) -> None:
    """SCRIPT FLUSH costs one more round trip and nothing else."""
    async with running_topology(address_of("redis", [server])) as topology:
        await run(topology, increment(b"a"))
        server.cli("SCRIPT", "FLUSH")
        answered = await run(topology, increment(b"a"), get(b"a"), increment(b"a"))

    assert (answered.replies, answered.same_memory) == ([[2, b""], b"1", [3, b""]], True)
    assert server.cli("SCRIPT", "EXISTS", INCREMENT.sha1) == "1"


@on_loop
async def test_a_server_that_may_evict_is_a_problem(server: RedisServer) -> None:
    """Counters must not be dropped to make room."""
    server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    async with running_topology(address_of("redis", [server]), wait=False) as topology:
        await eventually(lambda: node_of(topology).ready)

        assert topology.problems() == [
            f"{server.endpoint}: maxmemory-policy allkeys-lru may drop counters; set noeviction"
        ]
        assert node_of(topology).stats().may_evict


# Who may.


@on_loop
async def test_a_user_logs_in_over_tls_with_a_certificate() -> None:
    """ACL user, password, authority and client certificate."""
    options = RedisOptions(user="app", password=SECRET, tls=True, client_certs=True)
    with running_server(options) as server:
        async with running_topology(address_of("redis", [server], login=LOGIN)) as topology:
            answered = await run(topology, increment(b"a"))

    assert answered.replies == [[1, b""]]


@on_loop
async def test_tls_that_is_not_right_is_said_so() -> None:
    """A wrong name, no authority and no client certificate are refused, and `skip_verify` and a name help."""
    with running_server(RedisOptions(tls=True)) as server:
        for options, problem in (
            ({"server_name": "elsewhere"}, "tls: "),
            ({"ca": ""}, "tls: "),
            ({"ca": "/nowhere"}, "tls: "),
        ):
            await _refused(server, problem, **options)
        for options in ({"server_name": "localhost"}, {"ca": "", "skip_verify": "true"}):
            async with running_topology(address_of("redis", [server], **options)) as topology:
                assert (await run(topology, get(b"a"))).replies == [None]


@on_loop
async def test_a_missing_client_certificate_is_said_so() -> None:
    """The server ends the handshake, or the connection after it."""
    with running_server(RedisOptions(tls=True, client_certs=True)) as server:
        await _refused(server, "", cert="", key="")


@on_loop
async def test_a_login_that_is_not_right_is_said_so() -> None:
    """A wrong password, none, and one that cannot be read; no message has the password in it."""
    with running_server(RedisOptions(user="app", password=SECRET)) as server:
        await _refused(server, "auth: ", login="app:wrongwrong@")
        await _refused(server, "auth: ")
        await _refused(server, "auth: ", password_file="/nowhere")


@on_loop
async def test_a_user_who_may_too_little_is_said_so() -> None:
    """What is missing is named."""
    with running_server(RedisOptions(user="app", password=SECRET)) as server:
        server.cli("ACL", "SETUSER", "app", "-info")
        await _refused(server, "denied: ", login=LOGIN)


@on_loop
async def test_a_database_that_is_not_there_is_said_so(server: RedisServer) -> None:
    """Redis has 16 of them unless told otherwise."""
    await _refused(server, "denied: ", path="/99")


def _through(proxy: FaultProxy, **options: str) -> RedisAddress:
    given = {"connect_timeout": "10s", "command_timeout": "10s", **options}
    query = "&".join(f"{name}={value}" for name, value in given.items())
    return parse_store_url(f"redis://127.0.0.1:{proxy.port}?{query}")


async def _refused(server: RedisServer, problem: str, *, login: str = "", path: str = "", **options: str) -> None:
    """A topology does not get through, and says why without the password."""
    address = address_of("redis", [server], login=login, path=path, **options)
    async with running_topology(address, wait=False) as topology:
        await eventually(lambda: node_of(topology).stats().connect_failures > 0)
        problems = topology.problems()
        is_ready = node_of(topology).ready

    assert f"{server.endpoint}: {problem}" in problems[0]
    assert "wrongwrong" not in problems[0]
    assert not is_ready
