"""What goes wrong, and how it ends. Each fault is done to a world and undone after a while."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import msgspec
from chaos.replicas import ServiceReplica, StoreReplica
from chaos.worlds import Redis, Setting, World

from support.fault_proxy import FaultProxy, Way
from support.redis_servers import ClusterSetup, RedisCliFailed, RedisServer, SentinelSetup

Act = Callable[[World], Awaitable[None]]
_EVERY: Final = frozenset(Redis)
_ALONE: Final = frozenset({Redis.SINGLE})
_REPLICATED: Final = frozenset({Redis.SENTINEL, Redis.CLUSTER})
_NEVER: Final[frozenset[Redis]] = frozenset()


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong.

    Attributes:
        name: For people and test ids.
        begin, end: Do it, and undo it.
        lasts_s: Between the two.
        forgets: Over which Redis the store loses counts, so that `Marks` may admit up to the gauge (DECISIONS 17).
        skips_time: The store's clock goes on, so that what it then grants comes before its time, once.
        over: Which Redis it can be done to.
        of_services: Only to replicas that are processes; None: to both kinds.
        ends_replica: The first replica does not answer meanwhile.
    """

    name: str
    begin: Act
    end: Act
    lasts_s: float = 1.0
    forgets: frozenset[Redis] = _NEVER
    skips_time: bool = False
    over: frozenset[Redis] = _EVERY
    of_services: bool | None = None
    ends_replica: bool = False

    def fits(self, setting: Setting) -> bool:
        """Whether it can be done there, and tells something: a rule for lost memory is for faults that lose it."""
        if setting.redis not in self.over or self.of_services not in {None, setting.services}:
            return False
        return setting.has_usual_rules or setting.redis in self.forgets


async def _nothing(world: World) -> None:
    """Nothing is to be undone."""


async def _cli(server: RedisServer, *words: str) -> None:
    await asyncio.to_thread(server.cli, *words)


# On the way.


def _proxies(world: World, *, every: bool) -> Iterator[FaultProxy]:
    """Those of all replicas, or of the first."""
    for way in world.ways if every else world.ways[:1]:
        yield from way.proxies


def _cut(*ways: Way, every: bool = False) -> Act:
    async def begin(world: World) -> None:
        for proxy in _proxies(world, every=every):
            proxy.cut(*ways)

    return begin


async def _slow(world: World) -> None:
    for proxy in _proxies(world, every=True):
        proxy.delay_seconds = 0.05


async def _refuse(world: World) -> None:
    for proxy in _proxies(world, every=True):
        proxy.refuse()


async def _heal(world: World) -> None:
    for proxy in _proxies(world, every=True):
        proxy.heal()


# The servers.

_HIT: list[RedisServer] = []
"""Whom the fault under way was done to."""


async def _kill(world: World) -> None:
    _HIT[:] = [await asyncio.to_thread(world.master)]
    await asyncio.to_thread(_HIT[0].kill)


async def _restart(world: World) -> None:
    (server,) = _HIT
    await asyncio.to_thread(server.start)


async def _stop(world: World) -> None:
    _HIT[:] = [await asyncio.to_thread(world.master)]
    _HIT[0].stop()


async def _go_on(world: World) -> None:
    _HIT[0].go_on()


async def _fail_over(world: World) -> None:
    match world.setup:
        case SentinelSetup() as setup:
            await asyncio.to_thread(setup.fail_over)
        case ClusterSetup() as setup:
            # Whoever is a replica after what has been done to the world before.
            replica = next(server for server in setup.servers if server.answers("ROLE").startswith("slave"))
            await asyncio.to_thread(setup.fail_over, replica)
        case None:
            raise AssertionError


async def _flush(world: World) -> None:
    for server in world.servers:
        try:
            await _cli(server, "FLUSHALL")
        except RedisCliFailed:
            # A replica: its master's flush reaches it.
            continue


async def _fill_up(world: World) -> None:
    for server in await asyncio.to_thread(world.masters):
        await _cli(server, "CONFIG", "SET", "maxmemory", "1mb")


async def _make_room(world: World) -> None:
    for server in world.servers:
        await _cli(server, "CONFIG", "SET", "maxmemory", "0")


async def _read_only(world: World) -> None:
    _HIT[:] = [await asyncio.to_thread(world.master)]
    await _cli(_HIT[0], "REPLICAOF", "127.0.0.1", "1")


async def _master_again(world: World) -> None:
    await _cli(_HIT[0], "REPLICAOF", "NO", "ONE")


async def _lock(world: World) -> None:
    _HIT[:] = await asyncio.to_thread(world.masters)
    for server in _HIT:
        await _cli(server, "CONFIG", "SET", "requirepass", "another")
        # Who is in stays in, so they are put out.
        await _cli(server, *_AS_ANOTHER, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def _unlock(world: World) -> None:
    for server in _HIT:
        await _cli(server, *_AS_ANOTHER, "CONFIG", "SET", "requirepass", "")


_AS_ANOTHER: Final = ("--no-auth-warning", "-a", "another")


def _step_server_clock(seconds: int) -> Act:
    async def begin(world: World) -> None:
        clock = (await asyncio.to_thread(world.master)).clock
        assert clock is not None
        clock.step(seconds * 1_000_000)

    return begin


# The replicas.


def _service(world: World) -> ServiceReplica:
    (replica, *_) = world.replicas
    assert isinstance(replica, ServiceReplica)
    return replica


async def _kill_service(world: World) -> None:
    _service(world).send(signal.SIGKILL)


async def _start_service(world: World) -> None:
    await _service(world).spawn()


async def _stop_service(world: World) -> None:
    _service(world).send(signal.SIGSTOP)


async def _continue_service(world: World) -> None:
    _service(world).send(signal.SIGCONT)


def _step_clock(seconds: int) -> Act:
    async def begin(world: World) -> None:
        (replica, *_) = world.replicas
        assert isinstance(replica, StoreReplica)
        replica.clock.step_us = seconds * 1_000_000

    return begin


FAULTS: Final = (
    Fault("nothing", _nothing, _nothing),
    Fault("link cut to the server", _cut(Way.TO_SERVER), _heal),
    Fault("link cut to the replica", _cut(Way.TO_CLIENT), _heal),
    Fault("link cut both ways", _cut(), _heal, lasts_s=2.0),
    Fault("all links cut both ways", _cut(every=True), _heal, lasts_s=2.0),
    Fault("connections refused", _refuse, _heal),
    Fault("slow by 50 ms", _slow, _heal, lasts_s=2.0),
    Fault("server full", _fill_up, _make_room),
    # A member of a cluster takes no REPLICAOF; one that is no master any more says MOVED, as in a failover.
    Fault("server read-only", _read_only, _master_again, over=frozenset({Redis.SINGLE, Redis.SENTINEL})),
    # Sentinels are put out too, and may make another master.
    Fault("wrong password", _lock, _unlock, forgets=frozenset({Redis.SENTINEL})),
    Fault("replica's clock an hour on", _step_clock(3_600), _step_clock(0), of_services=False),
    Fault("replica's clock an hour back", _step_clock(-3_600), _step_clock(0), of_services=False),
    Fault("replica stopped 5 s", _stop_service, _continue_service, 5.0, of_services=True, ends_replica=True),
    Fault("replica killed", _kill_service, _start_service, of_services=True, ends_replica=True),
    Fault("server stopped 5 s", _stop, _go_on, 5.0, forgets=_REPLICATED),
    Fault("failover asked for", _fail_over, _nothing, forgets=_REPLICATED, over=_REPLICATED),
    Fault("flushed", _flush, _nothing, forgets=_EVERY),
    Fault("server killed", _kill, _restart, forgets=_ALONE, over=_ALONE),
    Fault("master killed", _kill, _restart, 6.0, forgets=_REPLICATED, over=_REPLICATED),
    # By whole windows, so that the store's still begin when those of the judge do.
    Fault("server's clock a second back", _step_server_clock(-1), _nothing),
    Fault("server's clock an hour on", _step_server_clock(3_600), _nothing, skips_time=True),
)
"""Those that make the store forget, or put its clocks apart, come last: what they do lasts for a while longer."""
