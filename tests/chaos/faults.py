"""What goes wrong, and how it ends. Each fault is done to a world and undone after a while."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from chaos.replicas import ServiceReplica, StoreReplica
from chaos.worlds import Redis, World

from support.fault_proxy import Way
from support.redis_servers import ClusterSetup, RedisCliFailed, RedisServer, SentinelSetup

Act = Callable[[World], Awaitable[None]]
_EVERY: Final = frozenset(Redis)
_ALONE: Final = frozenset({Redis.SINGLE})


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong.

    Attributes:
        name: For people and test ids.
        begin, end: Do it, and undo it.
        lasts_s: Between the two.
        forgets: The store loses counts, so that `Marks` may admit up to the gauge (DECISIONS 17).
        over: Which Redis it can be done to.
        of_services: Only to replicas that are processes; None: to both kinds.
        ends_replica: The first replica does not answer meanwhile.
    """

    name: str
    begin: Act
    end: Act
    lasts_s: float = 1.0
    forgets: bool = False
    over: frozenset[Redis] = _ALONE
    of_services: bool | None = None
    ends_replica: bool = False

    def fits(self, redis: Redis, *, services: bool) -> bool:
        """Whether it can be done there."""
        return redis in self.over and self.of_services in {None, services}


async def _nothing(world: World) -> None:
    """Nothing is to be undone."""


async def _cli(server: RedisServer, *words: str) -> None:
    await asyncio.to_thread(server.cli, *words)


# On the way.


def _cut(*ways: Way, every: bool = False) -> Act:
    async def begin(world: World) -> None:
        for proxy in world.proxies if every else world.proxies[:1]:
            proxy.cut(*ways)

    return begin


async def _slow(world: World) -> None:
    for proxy in world.proxies:
        proxy.delay_seconds = 0.05


async def _refuse(world: World) -> None:
    for proxy in world.proxies:
        proxy.refuse()


async def _heal(world: World) -> None:
    for proxy in world.proxies:
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
    await _cli(world.master(), "CONFIG", "SET", "maxmemory", "1mb")


async def _make_room(world: World) -> None:
    await _cli(world.servers[0], "CONFIG", "SET", "maxmemory", "0")


async def _read_only(world: World) -> None:
    await _cli(world.servers[0], "REPLICAOF", "127.0.0.1", "1")


async def _master_again(world: World) -> None:
    await _cli(world.servers[0], "REPLICAOF", "NO", "ONE")


async def _lock(world: World) -> None:
    await _cli(world.servers[0], "CONFIG", "SET", "requirepass", "another")
    # Who is in stays in, so they are put out.
    await asyncio.to_thread(
        world.servers[0].cli, "--no-auth-warning", "-a", "another", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
    )


async def _unlock(world: World) -> None:
    await asyncio.to_thread(
        world.servers[0].cli, "--no-auth-warning", "-a", "another", "CONFIG", "SET", "requirepass", ""
    )


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
    Fault("nothing", _nothing, _nothing, over=_EVERY),
    Fault("link cut to the server", _cut(Way.TO_SERVER), _heal),
    Fault("link cut to the replica", _cut(Way.TO_CLIENT), _heal),
    Fault("link cut both ways", _cut(), _heal, lasts_s=2.0),
    Fault("all links cut both ways", _cut(every=True), _heal, lasts_s=2.0),
    Fault("connections refused", _refuse, _heal),
    Fault("slow by 50 ms", _slow, _heal, lasts_s=2.0),
    Fault("server full", _fill_up, _make_room),
    Fault("server read-only", _read_only, _master_again),
    Fault("wrong password", _lock, _unlock),
    Fault("replica's clock an hour on", _step_clock(3_600), _step_clock(0), of_services=False),
    Fault("replica's clock an hour back", _step_clock(-3_600), _step_clock(0), of_services=False),
    Fault("replica stopped 5 s", _stop_service, _continue_service, 5.0, of_services=True, ends_replica=True),
    Fault("replica killed", _kill_service, _start_service, of_services=True, ends_replica=True),
    Fault("server stopped 5 s", _stop, _go_on, 5.0),
    Fault("master stopped 5 s", _stop, _go_on, 5.0, forgets=True, over=frozenset({Redis.SENTINEL, Redis.CLUSTER})),
    Fault("failover asked for", _fail_over, _nothing, forgets=True, over=frozenset({Redis.SENTINEL, Redis.CLUSTER})),
    Fault("flushed", _flush, _nothing, forgets=True, over=_EVERY),
    Fault("server killed", _kill, _restart, forgets=True),
    Fault("master killed", _kill, _restart, 6.0, forgets=True, over=frozenset({Redis.SENTINEL, Redis.CLUSTER})),
)
"""Those that make the store forget come last: their bounds are shown for a while longer."""
