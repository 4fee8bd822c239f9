"""The compat store over Redis counts as envoyproxy/ratelimit does: its keys, its commands, its errors.

Vectors: test/redis/fixed_cache_impl_test.go and test/limiter/base_limiter_test.go of that project.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit, LimitSettings
from ratelimit_service.clock import Clock
from ratelimit_service.quota.redis.topologies import make_topology
from ratelimit_service.quota.redis.upstream import UpstreamRedisSettings, UpstreamRedisStore
from ratelimit_service.quota.redis.upstream_counting import Servers
from ratelimit_service.quota.store import Charge, Outcome, Role, Source, Usage
from ratelimit_service.quota.upstream import upstream_stem
from ratelimit_service.redis_server.address import Endpoint, Layout, RedisAddress
from support.clocks import ManualClock
from support.redis_nodes import Told, address_of, eventually, ready
from support.redis_servers import RedisServer, running_cluster, running_server
from support.transports import on_loop

SECOND_US = 1_000_000
PATIENCE_US = 20 * SECOND_US
STEM = upstream_stem(b"domain", [(b"key", b"value")])
NO_JITTER = UpstreamRedisSettings(expiry_jitter_s=0)


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """The shared server, empty and not recording."""
    shared.cli("FLUSHALL")
    return shared


@pytest.fixture(scope="module")
def second() -> Iterator[RedisServer]:
    """A server for limits per second."""
    with running_server() as server:
        yield server


class Asked:
    """A store, with its answers as values."""

    def __init__(self, store: UpstreamRedisStore, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock

    async def charge(self, *charges: Charge, patience_us: int = PATIENCE_US) -> Sequence[Outcome]:
        at_once = self.store.charge(charges, self.clock.read())
        if at_once is not None:
            return at_once
        answer = asyncio.get_running_loop().create_future()
        self.store.charge_later(charges, self.clock.boot_us + patience_us, answer.set_result)
        return await answer

    async def peek(self, *charges: Charge) -> Sequence[Outcome]:
        answer = asyncio.get_running_loop().create_future()
        self.store.peek(charges, self.clock.read(), answer.set_result)
        return await answer

    async def refund(self, *charges: Charge) -> Sequence[Outcome]:
        answer = asyncio.get_running_loop().create_future()
        self.store.refund(charges, self.clock.read(), answer.set_result)
        return await answer

    async def reset(self, key: bytes = STEM) -> bool | None:
        answer = asyncio.get_running_loop().create_future()
        self.store.reset(b"any", key, answer.set_result)
        return await answer

    async def usage(self, domain: str, page: int = 0) -> Sequence[Usage] | None:
        answer = asyncio.get_running_loop().create_future()
        self.store.usage(domain, page, answer.set_result)
        return await answer


@contextlib.asynccontextmanager
async def asking(
    address: RedisAddress,
    settings: UpstreamRedisSettings = NO_JITTER,
    *,
    per_second: RedisAddress | None = None,
    wall_s: int = 1_234,
    wait: bool = True,
) -> AsyncIterator[Asked]:
    """A store at a wall time that stands still."""
    clock = ManualClock(wall_us=wall_s * SECOND_US)
    main = make_topology(address, Told(), Clock())
    other = None if per_second is None else make_topology(per_second, Told(), Clock())
    store = UpstreamRedisStore(clock=clock, servers=Servers(main, other, address.command_us), settings=settings)
    await store.start()
    try:
        for topology in (main, other) if wait else ():
            if topology is not None:
                await ready(topology)
        yield Asked(store, clock)
    finally:
        await store.close()


def windowed(requests: int, window_s: int = 60) -> Limit:
    return Limit(Algorithm.FIXED_WINDOW, requests=requests, window_us=window_s * SECOND_US, burst=requests)


def charge(
    hits: int = 1, requests: int = 10, window_s: int = 60, *, stem: bytes = STEM, role: Role = Role.ENFORCE
) -> Charge:
    return Charge(identity=b"any", limit=windowed(requests, window_s), key=stem, hits=hits, role=role)


def keys_of(server: RedisServer) -> set[str]:
    """Every key but the boot key, with its count and expiry."""
    script = """
    local found = {}
    for _, key in ipairs(redis.call('KEYS', '*')) do
      if not string.match(key, 'boot$') then
        table.insert(found, key .. '=' .. redis.call('GET', key) .. ' ' .. redis.call('TTL', key) .. 's')
      end
    end
    return found
    """
    return {line for line in server.cli("EVAL", script, "0").split("\n") if line}


# Keys and commands.


@on_loop
async def test_keys_are_those_of_the_original(server: RedisServer) -> None:
    """Prefix, domain, entries, start of the window in seconds; the expiry is the unit."""
    two = upstream_stem(b"domain", [(b"key2", b"value2"), (b"subkey2", b"subvalue2")])
    settings = UpstreamRedisSettings(prefix=b"prefix:", expiry_jitter_s=0)
    async with asking(address_of("redis", [server])) as plain:
        await plain.charge(charge(), charge(window_s=60, stem=two))
    async with asking(address_of("redis", [server]), settings, wall_s=1_000_000) as prefixed:
        await prefixed.charge(charge(window_s=3_600), charge(hits=2, window_s=86_400))

    assert {line.rpartition(" ")[0] for line in keys_of(server)} == {
        "domain_key_value_1200=1",
        "domain_key2_value2_subkey2_subvalue2_1200=1",
        "prefix:domain_key_value_997200=1",
        "prefix:domain_key_value_950400=2",
    }


@on_loop
async def test_every_call_increments_and_sets_the_expiry_anew(server: RedisServer) -> None:
    """Also a check with 0 hits, and nothing else: INCRBY and EXPIRE, in one pipeline."""
    key = "domain_key_value_1200"
    async with asking(address_of("redis", [server])) as asked:
        await asked.charge(charge(hits=3))
        server.cli("PERSIST", key)
        await asked.charge(charge(hits=0))
        await asked.charge(charge(hits=4))

    assert server.cli("GET", key) == "7"
    assert 50 <= int(server.cli("TTL", key)) <= 60


@on_loop
async def test_jitter_spreads_expiries(server: RedisServer) -> None:
    """Up to 300 s more, so that not all keys of a window expire at once."""
    stems = [upstream_stem(b"domain", [(b"key", b"%d" % number)]) for number in range(8)]
    async with asking(address_of("redis", [server]), UpstreamRedisSettings()) as asked:
        await asked.charge(*(charge(stem=stem) for stem in stems))

    left_s = [int(line.rpartition(" ")[2].rstrip("s")) for line in keys_of(server)]
    assert len(set(left_s)) > 1
    assert all(30 <= each <= 360 for each in left_s)


@on_loop
async def test_limits_per_second_have_a_redis_of_their_own(server: RedisServer, second: RedisServer) -> None:
    """Every other unit stays in the first."""
    per_second = address_of("redis", [second])
    async with asking(address_of("redis", [server]), per_second=per_second) as asked:
        outcomes = await asked.charge(charge(window_s=1), charge(window_s=60), charge(window_s=1))
        was_there = await asked.reset()
        counters = await asked.usage("domain")

    assert [outcome.before for outcome in outcomes] == [0, 0, 1]
    assert was_there
    assert counters == []


@on_loop
async def test_units_whose_windows_start_together_share_a_counter(server: RedisServer) -> None:
    """The unit is not in the key."""
    async with asking(address_of("redis", [server]), wall_s=86_400) as asked:
        outcomes = await asked.charge(charge(window_s=3_600), charge(window_s=86_400))

    assert [outcome.before for outcome in outcomes] == [0, 1]


# Verdicts.


@on_loop
async def test_over_is_more_than_the_limit(server: RedisServer) -> None:
    """Remaining is what the count leaves; a check with 0 hits at the limit is fine."""
    async with asking(address_of("redis", [server])) as asked:
        outcomes = [(await asked.charge(charge(hits=hits, requests=5)))[0] for hits in (5, 0, 1, 0)]

    assert [(each.over, each.remaining, each.before) for each in outcomes] == [
        (False, 0, 0),
        (False, 0, 5),
        (True, 0, 5),
        (True, 0, 6),
    ]
    assert {each.source for each in outcomes} == {Source.EXACT}
    assert outcomes[0].wait_us == 26 * SECOND_US


@on_loop
async def test_denied_requests_are_counted_in_full(server: RedisServer) -> None:
    """An addend that crosses the limit is charged, and so are the other descriptors."""
    other = upstream_stem(b"domain", [(b"other", b"value")])
    async with asking(address_of("redis", [server])) as asked:
        await asked.charge(charge(hits=2, requests=5))
        outcomes = await asked.charge(charge(hits=5, requests=5), charge(stem=other))

    assert [(each.over, each.before) for each in outcomes] == [(True, 2), (False, 0)]
    assert {line.rpartition(" ")[0] for line in keys_of(server)} == {
        "domain_key_value_1200=7",
        "domain_other_value_1200=1",
    }


@on_loop
async def test_hits_beyond_what_redis_counts_saturate(server: RedisServer) -> None:
    """What a client may send is no error."""
    async with asking(address_of("redis", [server])) as asked:
        huge = (await asked.charge(charge(hits=2**64 - 1)))[0]
        server.cli("SET", "domain_key_value_1200", str(2**63 - 1))
        full = (await asked.charge(charge()))[0]

    assert (huge.over, full.over) == (True, True)


@on_loop
async def test_looks_change_nothing(server: RedisServer) -> None:
    """`peek` and charges that only observe are answered from GET."""
    async with asking(address_of("redis", [server])) as asked:
        await asked.charge(charge(hits=3, requests=5))
        (peeked,) = await asked.peek(charge(hits=3, requests=5))
        (seen,) = await asked.charge(charge(hits=2, requests=5, role=Role.OBSERVE))

    assert (peeked.over, peeked.before) == (True, 3)
    assert (seen.over, seen.before, seen.remaining) == (False, 3, 0)
    assert {line.rpartition(" ")[0] for line in keys_of(server)} == {"domain_key_value_1200=3"}


@on_loop
async def test_requests_that_arrive_together_share_a_pipeline(server: RedisServer) -> None:
    """None waits for a timer; counts add up in the order of arrival."""
    async with asking(address_of("redis", [server])) as asked:
        outcomes = await asyncio.gather(*(asked.charge(charge(requests=50)) for _ in range(60)))
        stats = asked.store.stats()

    assert [each.before for (each,) in outcomes] == list(range(60))
    assert sum(each.over for (each,) in outcomes) == 10
    assert (stats.batched_charges, stats.waiting) == (60, 0)
    assert stats.batches <= 3


# The local cache, and stopping.


@on_loop
async def test_the_local_cache_answers_for_keys_that_are_over(server: RedisServer) -> None:
    """Redis is not asked; all hits are over the limit; the next window is asked for anew."""
    settings = UpstreamRedisSettings(expiry_jitter_s=0, local_cache_bytes=10_000)
    async with asking(address_of("redis", [server]), settings) as asked:
        await asked.charge(charge(hits=11))
        at_once = asked.store.charge([charge(hits=2)], asked.clock.read())
        mixed = await asked.charge(charge(), charge(window_s=3_600))
        stats = asked.store.stats()
        asked.clock.advance(60 * SECOND_US)
        (next_window,) = await asked.charge(charge())

    assert at_once is not None
    assert [(each.over, each.before, each.source) for each in at_once] == [(True, 10, Source.MEMORY)]
    assert [each.over for each in mixed] == [True, False]
    assert (stats.over_limit_with_local_cache, stats.cached_keys) == (3, 1)
    assert not next_window.over
    assert "domain_key_value_1200=11" in {line.rpartition(" ")[0] for line in keys_of(server)}


@on_loop
async def test_stopping_counts_only_the_keys_that_cross(server: RedisServer) -> None:
    """Where one crosses its limit, its companions are spared; else all are counted."""
    other = upstream_stem(b"domain", [(b"other", b"value")])
    settings = UpstreamRedisSettings(expiry_jitter_s=0, stop_when_over=True)
    async with asking(address_of("redis", [server]), settings) as asked:
        await asked.charge(charge(hits=10), charge(hits=2, stem=other))
        outcomes = await asked.charge(charge(hits=1), charge(hits=2, stem=other))

    assert [(each.over, each.before, each.remaining) for each in outcomes] == [(True, 10, 0), (False, 2, 8)]
    assert {line.rpartition(" ")[0] for line in keys_of(server)} == {
        "domain_key_value_1200=11",
        "domain_other_value_1200=2",
    }


@on_loop
async def test_stopping_with_the_local_cache_spares_the_key_itself_too(server: RedisServer) -> None:
    """The cached key is not asked for, and its companions get 0."""
    other = upstream_stem(b"domain", [(b"other", b"value")])
    settings = UpstreamRedisSettings(expiry_jitter_s=0, stop_when_over=True, local_cache_bytes=10_000)
    async with asking(address_of("redis", [server]), settings) as asked:
        await asked.charge(charge(hits=11))
        outcomes = await asked.charge(charge(), charge(stem=other))

    assert [each.over for each in outcomes] == [True, False]
    assert {line.rpartition(" ")[0] for line in keys_of(server)} == {
        "domain_key_value_1200=11",
        "domain_other_value_1200=0",
    }


# Administration.


@on_loop
async def test_refunds_never_go_below_zero(server: RedisServer) -> None:
    """The expiry stays; what is not there stays not there."""
    async with asking(address_of("redis", [server])) as asked:
        await asked.charge(charge(hits=3))
        (some,) = await asked.refund(charge(hits=2))
        (all_of_it,) = await asked.refund(charge(hits=9))
        (nothing,) = await asked.refund(charge(hits=1, window_s=3_600))

    assert [some.before, all_of_it.before, nothing.before] == [1, 0, 0]
    assert int(server.cli("TTL", "domain_key_value_1200")) > 0
    assert server.cli("EXISTS", "domain_key_value_0") == "0"


@on_loop
async def test_a_reset_forgets_every_unit(server: RedisServer) -> None:
    """It says whether there was something."""
    async with asking(address_of("redis", [server])) as asked:
        await asked.charge(charge(), charge(window_s=86_400))
        answers = [await asked.reset(), await asked.reset()]

    assert answers == [True, False]
    assert keys_of(server) == set()


@on_loop
async def test_counters_of_a_domain_are_listed_in_pages(server: RedisServer) -> None:
    """A hundred each; characters that Redis takes for patterns mean themselves."""
    stems = [upstream_stem(b"d*", [(b"key", b"%d" % number)]) for number in range(130)]
    stranger = upstream_stem(b"dx", [(b"key", b"value")])
    async with asking(address_of("redis", [server])) as asked:
        await asked.charge(*(charge(stem=stem) for stem in stems), charge(stem=stranger))
        server.cli("SET", "d*_text", "no count")
        pages = [await asked.usage("d*", page) or () for page in range(3)]

    assert [len(page) for page in pages] == [100, 30, 0]
    assert {each.key for page in pages for each in page} == {b"%b1200" % stem for stem in stems}
    assert {each.used for page in pages for each in page} == {1}
    assert all(0 < each.wait_us <= 60 * SECOND_US for each in pages[0])


def test_counting_is_exact_wherever_it_is_asked() -> None:
    """The bound beyond a limit is 0."""
    topology = make_topology(address_of_nothing(), Told(), Clock())
    store = UpstreamRedisStore(clock=Clock(), servers=Servers(topology, None, 1_000))

    assert store.bound("any") == 0


# Errors.


@on_loop
async def test_what_cannot_be_counted_is_degraded() -> None:
    """Every charge of the request, by its failure mode; the limiter makes UNKNOWN of it."""
    with running_server() as own:
        async with asking(address_of("redis", [own])) as asked:
            asked.store.apply({b"any": LimitSettings(windowed(5), "domain", "rule", FailureMode.OPEN)})
            await asked.charge(charge())
            own.kill()
            (gone,) = await asked.charge(charge())
            (unseen,) = await asked.peek(charge())
            (kept,) = await asked.refund(charge())
            was_there = await asked.reset()
            counters = await asked.usage("domain")
            failed = asked.store.stats().failed
            own.start()
            await eventually(lambda: not asked.store._servers.main.problems())
            (back,) = await asked.charge(charge())

    assert [(each.degraded, each.source, each.over) for each in (gone, unseen, kept)] == [
        (True, Source.FALLBACK, False)
    ] * 3
    assert (failed, was_there, counters) == (3, None, None)
    assert (back.degraded, back.before) == (False, 0)


@on_loop
async def test_one_charge_that_is_no_count_spoils_its_request_only(server: RedisServer) -> None:
    """The others of the pipeline are answered; what was counted stays counted."""
    server.cli("SET", "domain_bad_value_1200", "text")
    bad = upstream_stem(b"domain", [(b"bad", b"value")])
    async with asking(address_of("redis", [server])) as asked:
        good, spoilt = await asyncio.gather(asked.charge(charge()), asked.charge(charge(), charge(stem=bad)))
        (unreadable,) = await asked.peek(charge(stem=bad))

    assert [each.degraded for each in (*good, *spoilt, unreadable)] == [False, True, True, True]
    assert server.cli("GET", "domain_key_value_1200") == "2"


@on_loop
async def test_a_late_answer_is_an_error_at_the_deadline(server: RedisServer) -> None:
    """The request is answered in time, whatever Redis does."""
    async with asking(address_of("redis", [server])) as asked:
        server.cli("CLIENT", "PAUSE", "300", "WRITE")
        (late,) = await asked.charge(charge(), patience_us=20_000)
        await eventually(lambda: asked.store.stats().waiting == 0)

    assert late.degraded
    assert late.over


@on_loop
async def test_what_waits_when_the_store_is_closed_is_answered(server: RedisServer) -> None:
    """Nobody waits for ever."""
    async with asking(address_of("redis", [server])) as asked:
        answers: list[Sequence[Outcome]] = []
        asked.store.charge_later([charge()], asked.clock.boot_us + PATIENCE_US, answers.append)

    assert [each.degraded for (each,) in answers] == [True]


@on_loop
async def test_a_cluster_counts_each_key_at_its_owner() -> None:
    """A request's keys are in several slots, and all of them are counted."""
    stems = [upstream_stem(b"domain", [(b"key", b"%d" % number)]) for number in range(30)]
    with running_cluster() as cluster:
        async with asking(address_of("redis+cluster", cluster.servers[:1])) as asked:
            first = await asked.charge(*(charge(stem=stem) for stem in stems))
            again = await asked.charge(*(charge(stem=stem) for stem in stems))
            counters = await asked.usage("domain") or ()
            was_there = await asked.reset(stems[0])
        per_server = [len(keys_of(server)) for server in cluster.servers[:3]]

    assert {each.before for each in first} == {0}
    assert {each.before for each in again} == {1}
    assert len(counters) == 30
    assert was_there
    assert sum(per_server) == 29
    assert sorted(per_server)[1] > 0


def address_of_nothing() -> RedisAddress:
    return RedisAddress(layout=Layout.SINGLE, endpoints=(Endpoint("127.0.0.1", 1),))
