"""The store over a real Redis: exact and leased, several replicas, outages, administration."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit, LimitSettings
from ratelimit_service.clock import Clock
from ratelimit_service.policy.identity import counter_key, limit_id
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.masters import NewMasterRule
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.redis.store import RedisStore, rule_of
from ratelimit_service.quota.store import Charge, Outcome, Role, Source, Usage
from ratelimit_service.redis_server.address import parse_store_url
from support.redis_servers import MISSING, RedisServer, running_server

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason=MISSING)

WINDOW_US: Final = 30 * 86_400 * 1_000_000
"""So long that no test meets its edge."""

PATIENCE_US: Final = 30_000_000
EXACT: Final = ReplicaSettings(leases=LeaseSettings(exact=True))
LEASED: Final = ReplicaSettings(leases=LeaseSettings(horizon_us=2_000_000))
CLOCK: Final = Clock()

each_mode = pytest.mark.parametrize("mode", [EXACT, LEASED], ids=["exact", "leased"])
each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for all tests that leave it as it is."""
    with running_server() as running:
        yield running


def charge(
    requests: int,
    *,
    rule: str,
    key: bytes = b"key",
    hits: int = 1,
    role: Role = Role.ENFORCE,
    algorithm: Algorithm = Algorithm.FIXED_WINDOW,
    window_us: int = WINDOW_US,
) -> Charge:
    """A charge as the limiter makes it; every test has a rule of its own."""
    limit = Limit(algorithm, requests, window_us, requests)
    return Charge(limit_id("shop", rule, limit), limit, counter_key([key]), hits, role)


def in_force(*charges: Charge, rule: str, failure: FailureMode = FailureMode.SHARE) -> dict[bytes, LimitSettings]:
    """The limits of some charges."""
    return {each.identity: LimitSettings(each.limit, "shop", rule, failure) for each in charges}


@asynccontextmanager
async def running_store(
    server: RedisServer,
    settings: ReplicaSettings,
    *,
    prefix: bytes = b"",
    connected: bool = True,
    wait_replicas: int = 0,
) -> AsyncIterator[RedisStore]:
    """A store that has begun; its round trips have time enough for a busy machine."""
    address = parse_store_url(f"redis://{server.endpoint}")
    patient = msgspec.structs.replace(address, command_us=10_000_000, key_prefix=prefix)
    store = RedisStore(patient, settings, CLOCK, wait_replicas=wait_replicas)
    await store.start()
    if connected:
        await until(lambda: store.replica.membership.live is not None)
    try:
        yield store
    finally:
        await store.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_US / 1_000_000):
        while not condition():  # noqa: ASYNC110 — what is waited for happens in a server
            await asyncio.sleep(0.01)


async def ask(store: RedisStore, *charges: Charge) -> Sequence[Outcome]:
    """Decide one request."""
    now = CLOCK.read()
    outcomes = store.charge(charges, now)
    if outcomes is not None:
        return outcomes
    answer: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
    store.charge_later(charges, now.boot_us + PATIENCE_US, answer.set_result)
    return await answer


async def peek(store: RedisStore, asked: Charge) -> Outcome:
    """Look at a counter."""
    answer: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
    store.peek([msgspec.structs.replace(asked, hits=0)], CLOCK.read(), answer.set_result)
    return (await answer)[0]


async def listed(store: RedisStore, page: int = 0) -> Sequence[Usage]:
    """One page of the domain's counters."""
    answer: asyncio.Future[Sequence[Usage] | None] = asyncio.get_running_loop().create_future()
    store.usage("shop", page, answer.set_result)
    usages = await answer
    assert usages is not None
    return usages


async def passed(store: RedisStore, asked: Charge, times: int) -> int:
    """How many of as many requests pass."""
    return sum([not (await ask(store, asked))[0].over for _ in range(times)])


@each_mode
@each_algorithm
def test_exactly_the_limit_is_admitted(server: RedisServer, mode: ReplicaSettings, algorithm: Algorithm) -> None:
    """Of more requests than a small limit, the first L pass."""

    async def scenario() -> int:
        async with running_store(server, mode) as store:
            asked = charge(5, rule=f"few {algorithm.value} {mode.leases.exact}", algorithm=algorithm)
            return await passed(store, asked, 9)

    assert asyncio.run(scenario()) == 5


@each_mode
def test_replicas_share_one_budget(server: RedisServer, mode: ReplicaSettings) -> None:
    """Two of them together admit the limit and no more: what one holds and does not spend, the other can have."""
    asked = charge(300, rule=f"shared {mode.leases.exact}")

    async def scenario() -> int:
        async with running_store(server, mode) as first:
            async with running_store(server, mode) as second:
                total = await passed(first, asked, 100) + await passed(second, asked, 150)
            async with asyncio.timeout(PATIENCE_US / 1_000_000):
                while total < 300:
                    total += await passed(first, asked, 1)
                    await asyncio.sleep(0.001)
            return total + await passed(first, asked, 20)

    assert asyncio.run(scenario()) == 300


def test_leased_requests_spare_the_store(server: RedisServer) -> None:
    """Most are decided at once, and the store counts what was spent once the replica has closed."""
    asked = charge(100_000, rule="spared")

    async def scenario() -> tuple[int, int, int]:
        async with running_store(server, LEASED) as store:
            await passed(store, asked, 3_000)
            takes, sources = store.stats().leases.takes, store.stats().leases.decisions
        async with running_store(server, EXACT) as later:
            return takes, sources[Source.LEASE], (await peek(later, asked)).before

    takes, leased, counted = asyncio.run(scenario())
    assert takes < 1_000
    assert leased > 2_000
    assert counted == 3_000


@each_mode
def test_request_of_several_keys_is_all_or_nothing(server: RedisServer, mode: ReplicaSettings) -> None:
    """A refused companion leaves no trace."""
    full = charge(1, rule=f"full {mode.leases.exact}")
    free = msgspec.structs.replace(charge(9, rule=f"free {mode.leases.exact}"), unit=1)

    async def scenario() -> tuple[list[bool], int]:
        async with running_store(server, mode) as store:
            await ask(store, full)
            overs = [outcome.over for outcome in await ask(store, full, free)]
            return overs, (await peek(store, free)).before

    assert asyncio.run(scenario()) == ([True, False], 0)


def test_refund_reset_and_penalty_reach_the_store(server: RedisServer) -> None:
    """Each of them is seen by another replica."""
    asked = charge(10, rule="administered", hits=8)
    penalty = charge(10, rule="administered", hits=25, role=Role.PENALTY)

    async def scenario() -> list[int]:
        async with running_store(server, EXACT) as store, running_store(server, EXACT) as other:
            answer: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
            was_there: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
            await ask(store, asked)
            seen = [(await peek(other, asked)).before]
            store.refund([msgspec.structs.replace(asked, hits=3)], CLOCK.read(), answer.set_result)
            seen.append((await answer)[0].before)
            await ask(store, penalty)
            await until_counted(other, asked, 30)
            store.reset(asked.identity, asked.key, was_there.set_result)
            return [*seen, int(await was_there or False), (await peek(other, asked)).before]

    assert asyncio.run(scenario()) == [8, 5, 1, 0]


async def until_counted(store: RedisStore, asked: Charge, hits: int) -> None:
    """Wait until the store has counted so many hits: a debt follows its answer."""
    async with asyncio.timeout(PATIENCE_US / 1_000_000):
        while (await peek(store, asked)).before != hits:  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.01)


def test_usage_pages_through_a_domain(server: RedisServer) -> None:
    """Every counter of the domain is on one page, with its use."""
    asked = charge(9, rule="paged", hits=2)

    async def scenario() -> list[Usage]:
        async with running_store(server, EXACT) as store:
            store.apply(in_force(asked, rule="paged"))
            for number in range(130):
                await ask(store, msgspec.structs.replace(asked, key=counter_key([b"%d" % number])))
            pages = [await listed(store, page) for page in range(3)]
            assert [len(page) for page in pages] == [100, 30, 0]
            return [usage for page in pages for usage in page]

    usages = asyncio.run(scenario())
    assert {usage.key for usage in usages} == {counter_key([b"%d" % number]) for number in range(130)}
    assert {(usage.identity, usage.used, usage.remaining) for usage in usages} == {(asked.identity, 2, 7)}


def test_usage_without_a_server_is_not_known() -> None:
    """It is not empty; and a limit that nobody has charged is on no page."""
    asked, other = charge(9, rule="lost"), charge(9, rule="lost", window_us=60_000_000)

    async def scenario(server: RedisServer) -> tuple[int, Sequence[Usage] | None]:
        async with running_store(server, EXACT) as store:
            store.apply(in_force(asked, other, rule="lost"))
            await ask(store, asked)
            before = len(await listed(store))
            server.kill()
            after: asyncio.Future[Sequence[Usage] | None] = asyncio.get_running_loop().create_future()
            store.usage("shop", 0, after.set_result)
            return before, await after

    with running_server() as server:
        assert asyncio.run(scenario(server)) == (1, None)


def test_replicas_hold_slots(server: RedisServer) -> None:
    """As many as there are slots; each counts the others, and a slot is free again when its holder closes."""
    settings = ReplicaSettings(slots=2, leases=LeaseSettings())

    async def scenario() -> tuple[set[int | None], int | None, int | None]:
        async with running_store(server, settings, prefix=b"slots") as first:
            async with (
                running_store(server, settings, prefix=b"slots") as second,
                running_store(server, settings, prefix=b"slots") as third,
            ):
                slots = {first.stats().slot, second.stats().slot}
                without = third.stats().slot
            async with running_store(server, settings, prefix=b"slots") as fourth:
                return slots, without, fourth.stats().slot

    slots, without, again = asyncio.run(scenario())
    assert (slots, without) == ({0, 1}, None)
    assert again in slots


def test_other_form_takes_the_standing_allowance_away(server: RedisServer) -> None:
    """Replicas that go by different shares never hold one at the same time."""
    old, new = (ReplicaSettings(slots=2, standing_percent=percent) for percent in (10, 20))

    async def scenario() -> tuple[int | None, int | None]:
        async with (
            running_store(server, old, prefix=b"form") as first,
            running_store(server, new, prefix=b"form") as second,
        ):
            return first.stats().slot, second.stats().slot

    assert None in asyncio.run(scenario())


def test_store_remembers_until_when_another_form_owned_something(server: RedisServer) -> None:
    """Those of its own form are told nothing, those of another one leave the most alone, though they own nothing."""
    owning, plain = ReplicaSettings(slots=2, standing_percent=20), ReplicaSettings(slots=2)
    asked = charge(100, rule="owned")

    def reserve(store: RedisStore) -> int:
        return store.replica.standing.reserve(asked.identity, asked.limit, CLOCK.read())

    async def scenario() -> list[int]:
        async with running_store(server, plain, prefix=b"owned") as store:
            reserved = [reserve(store)]
        server.cli("DEL", "owned{slots}form")
        async with running_store(server, owning, prefix=b"owned") as first:
            reserved.append(reserve(first))
            async with running_store(server, plain, prefix=b"owned") as other:
                reserved.append(reserve(other))
        server.cli("DEL", "owned{slots}form")
        async with running_store(server, plain, prefix=b"owned") as late:
            reserved.append(reserve(late))
        server.cli("HSET", "owned{slots}owned", "long over", "1")
        async with running_store(server, plain, prefix=b"owned") as last:
            await until(lambda: server.cli("HEXISTS", "owned{slots}owned", "long over").strip() == "0")
            return [*reserved, reserve(last)]

    assert asyncio.run(scenario()) == [0, 20, 50, 50, 50]


@pytest.mark.parametrize(
    ("rule", "degraded"),
    [(NewMasterRule.LEARN, False), (NewMasterRule.QUARANTINE, True), (NewMasterRule.TRUST, False)],
)
def test_first_start_on_an_empty_store_grants_at_once_unless_in_quarantine(rule: NewMasterRule, degraded: bool) -> None:
    """Nobody can tell a new store from one that was emptied; only a quarantine waits for the window to end."""
    asked = charge(100, rule="new")

    async def scenario(server: RedisServer) -> bool:
        async with running_store(server, ReplicaSettings(new_master=rule)) as store:
            return (await ask(store, asked))[0].degraded

    with running_server() as server:
        assert asyncio.run(scenario(server)) is degraded


def test_store_whose_memory_is_old_is_granted_from_in_quarantine_too() -> None:
    """As its boot value tells; a replica may start at any time."""
    short, long = (charge(100, rule="old", window_us=seconds * 1_000_000) for seconds in (60, 3_600))
    quarantined = ReplicaSettings(new_master=NewMasterRule.QUARANTINE)

    async def scenario(server: RedisServer) -> list[bool]:
        run_id = next(line[7:] for line in server.cli("INFO", "server").splitlines() if line.startswith("run_id:"))
        began_us = CLOCK.read().wall_us - 600_000_000
        server.cli("SET", "{0}boot", f"{'0' * 32}:{run_id}:{began_us}")
        async with running_store(server, quarantined, prefix=b"") as store:
            return [(await ask(store, asked))[0].degraded for asked in (short, long)]

    with running_server() as server:
        assert asyncio.run(scenario(server)) == [False, True]


def test_store_that_is_away_at_the_start_is_used_when_it_comes() -> None:
    """Until then the failure mode decides, at once; nothing has to be restarted."""
    asked = charge(20, rule="away")

    async def scenario(server: RedisServer) -> tuple[list[bool], bool]:
        server.kill()
        async with running_store(server, ReplicaSettings(slots=4), connected=False) as store:
            store.apply(in_force(asked, rule="away"))
            outcomes = [store.charge([asked], CLOCK.read()) for _ in range(8)]
            overs = [outcome[0].over for outcome in outcomes if outcome is not None and outcome[0].degraded]
            server.start()
            await until(lambda: store.replica.membership.live is not None)
            return overs, (await ask(store, asked))[0].degraded

    with running_server() as server:
        assert asyncio.run(scenario(server)) == ([False] * 5 + [True] * 3, False)


def test_memory_that_is_lost_is_noticed_and_taught() -> None:
    """After FLUSHALL the replica tells the store what it had counted."""
    asked = charge(100, rule="flushed", hits=60)

    async def scenario(server: RedisServer) -> tuple[int, bool]:
        async with running_store(server, EXACT) as store:
            store.apply(in_force(asked, rule="flushed", failure=FailureMode.CLOSED))
            await ask(store, asked)
            server.cli("FLUSHALL")
            await ask(store, charge(5, rule="any"))
            await until(lambda: store.stats().leases.masters == 1)
            await until_counted(store, asked, 60)
            return store.stats().leases.masters, store.bound("flushed") > 0

    with running_server() as server:
        assert asyncio.run(scenario(server)) == (1, True)


def test_durable_grants_wait_for_a_replica() -> None:
    """Without one nothing that is granted is spent; with one it is, and nothing of before was lost to anybody."""
    asked = charge(1_000_000, rule="durable")

    async def scenario(server: RedisServer, replica: RedisServer) -> tuple[bool, int, bool]:
        async with running_store(server, EXACT, wait_replicas=1) as store:
            store.apply(in_force(asked, rule="durable", failure=FailureMode.CLOSED))
            (without,) = await ask(store, asked)
            forfeited = store.stats().leases.forfeited
            replica.cli("REPLICAOF", "127.0.0.1", str(server.port))
            async with asyncio.timeout(PATIENCE_US / 1_000_000):
                while (await ask(store, asked))[0].degraded:  # noqa: ASYNC110 — as above
                    await asyncio.sleep(0.05)
            return without.degraded, forfeited, store.stats().leases.spent > 0

    with running_server() as server, running_server() as replica:
        assert asyncio.run(scenario(server, replica)) == (True, 1, True)


def test_rule_is_read_from_its_limits_names() -> None:
    """All limits of one rule share a counted key; bytes that are no name of ours stand for themselves."""
    limits = [charge(5, rule="one", window_us=window_us) for window_us in (WINDOW_US, 60_000_000)]
    other = charge(5, rule="other")

    assert len({rule_of(each.identity) for each in limits}) == 1
    assert rule_of(other.identity) not in {rule_of(each.identity) for each in limits}
    assert [rule_of(raw) for raw in (b"", b"\x01\x00", b"\x01\xff\xff\xff\xffabc")] == [
        b"",
        b"\x01\x00",
        b"\x01\xff\xff\xff\xffabc",
    ]
