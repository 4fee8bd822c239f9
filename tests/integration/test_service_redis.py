"""Services that share their counts in a real Redis, chosen by flag and by policy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ratelimit_service.addresses import parse_address
from ratelimit_service.app import Service
from ratelimit_service.quota.health import CountingStatus
from ratelimit_service.settings import decode_settings
from ratelimit_service.transport.admin_client import ask_admin, body_of
from ratelimit_service.transport.client import CallFailed, RateLimitClient
from ratelimit_service.wire.grpc.status import GrpcCode
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.redis_servers import RedisOptions, RedisServer, require_redis
from support.service_process import START_S, check, policy_folder, serving
from support.transports import on_loop

pytestmark = pytest.mark.usefixtures("signals_given_back")

POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: checkout, namespace: shop}}
spec:
  domain: shop.checkout{profile}
  failure: {{onStoreError: Closed}}
  rules:
  - {{name: few, match: [{{key: few, type: Any}}], limits: [{{requests: 5, window: 1h}}]}}
  - {{name: many, match: [{{key: many, type: Any}}], limits: [{{requests: 40, window: 1h}}]}}
"""
PROFILE = """\
---
apiVersion: tidegate.dev/v1alpha1
kind: CacheProfile
metadata: {{name: shared, namespace: shop}}
spec:
  store: {{type: Redis, endpoints: ["{endpoint}"], timeouts: {{connect: 5s, command: 5s}}, keyPrefix: "{prefix}"}}
  leases: {{slots: 2}}
"""


def ask(key: str) -> Request:
    """One hit."""
    return Request(b"shop.checkout", (Descriptor(((key.encode(), b"ann"),)),))


@contextlib.asynccontextmanager
async def started(policies: Path, **flags: str) -> AsyncIterator[tuple[Service, RateLimitClient]]:
    """A service with a deadline that no loaded machine misses."""
    given = {
        "grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_delay": "0", "log_level": "error", "deadline": "20s",
        **flags,
    }  # fmt: skip
    values = {"--" + name.replace("_", "-"): (text,) for name, text in given.items()}
    service = Service(decode_settings({**values, "--policies": (str(policies),)}, ("native",)))
    await service.start()
    try:
        async with RateLimitClient(service.grpc_addresses[0]) as client:
            yield service, client
    finally:
        await service.drain()


async def admitted(clients: list[RateLimitClient], key: str, calls: int) -> int:
    """How many of `calls` calls to each client passed."""
    verdicts = [await client.ask(ask(key), timeout_s=25) for _ in range(calls) for client in clients]
    return sum(not verdict.over for verdict in verdicts)


def metrics_of(service: Service) -> str:
    """What a scrape shows."""
    return b"".join(service.view.render_metrics()).decode()


async def until(holds: Callable[[], bool]) -> None:
    """Poll, at most 20 s."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 — what is awaited happens in other processes
            await asyncio.sleep(0.02)


async def connected(*services: Service) -> None:
    """Every shared store has its server."""
    up = re.compile(r"tidegate_store_node_up\{.*\} 1\n").search
    await until(lambda: all(up(metrics_of(service)) for service in services))


async def page_of(service: Service, method: str, target: str, *fields: tuple[str, bytes]) -> bytes:
    """The body of an admin page that answers 200."""
    address = parse_address(service.admin_addresses[0])
    answer = await asyncio.to_thread(ask_admin, address, method, target, [("domain", b"shop.checkout"), *fields], 25.0)
    return body_of(answer, 200)


async def admits_again(client: RateLimitClient, key: str) -> None:
    """Ask until it does: what one replica denies is asked again after a second (DECISIONS 16); at most 20 s."""
    async with asyncio.timeout(20):
        while (await client.ask(ask(key), timeout_s=25)).over:  # noqa: ASYNC110 — another process forgets, in time
            await asyncio.sleep(0.05)


@on_loop
async def test_a_reset_reaches_every_service(tmp_path: Path, redis: RedisServer) -> None:
    """Exact and leased: what one of them denies, both admit again; never more than the limit and what was leased."""
    path = tmp_path / "checkout.yaml"
    path.write_text(POLICY.format(profile=""))
    store = f"redis://{redis.endpoint}/7?command_timeout=5s&connect_timeout=5s"
    async with started(path, store=store) as (first, one), started(path, store=store) as (second, two):
        await connected(first, second)
        for key, calls in (("few", 5), ("many", 60)):
            await admitted([one, two], key, calls)
            over = [await client.ask(ask(key), timeout_s=25) for client in (one, two)]
            assert all(verdict.over for verdict in over)
            await page_of(first, "POST", "/reset", ("entry", key.encode() + b"=ann"))
            for client in (one, two):
                await admits_again(client, key)
        many = await admitted([one, two], "many", 60)
        told = json.loads(await page_of(second, "GET", "/counters", ("by", b"limit")))

    assert many <= 40 - 2
    assert {limit["rule"] for limit in told["limits"]} == {"few", "many"}


@on_loop
async def test_two_services_share_a_budget_by_flag(tmp_path: Path, redis: RedisServer) -> None:
    """Exact and leased limits: never more than the limit over both, and the whole of it is to be had."""
    path = tmp_path / "checkout.yaml"
    path.write_text(POLICY.format(profile=""))
    store = f"redis://{redis.endpoint}/3?command_timeout=5s&connect_timeout=5s"
    async with started(path, store=store) as (first, one), started(path, store=store) as (second, two):
        await connected(first, second)
        few = await admitted([one, two], "few", 8)
        many = await admitted([one, two], "many", 60)
        usage = await first.view.usage("shop.checkout", 0) or ()

    assert few == 5
    assert 30 <= many <= 40
    assert {use.used for use in usage} >= {5}


@on_loop
async def test_a_profile_names_the_store_of_its_domain(tmp_path: Path, redis: RedisServer) -> None:
    """Counts of the domain are in Redis under the profile's prefix, and go on there after a reload to another limit."""
    path = tmp_path / "checkout.yaml"
    profile = "\n  cacheProfileRef: {name: shared}"
    text = POLICY.format(profile=profile) + PROFILE.format(endpoint=redis.endpoint, prefix="p1.")
    path.write_text(text)
    async with started(path) as (service, client):
        await connected(service)
        first = await admitted([client], "few", 7)
        path.write_text(text.replace("requests: 5", "requests: 6"))
        await until(lambda: "requests=6" in repr(service.snapshot))
        second = await admitted([client], "few", 3)
        shown = metrics_of(service)

    assert (first, second) == (5, 1)
    assert 'tidegate_store_takes_total{profile="shop/shared"}' in shown
    assert redis.cli("--scan", "--pattern", "p1.*few*") or redis.cli("--scan", "--pattern", "p1.*ann*")


@on_loop
async def test_health_tells_each_store_and_what_is_wrong_with_it(tmp_path: Path, redis: RedisServer) -> None:
    """The profile's Redis is well, the service's own is not there; degraded, as the failure mode decides for it."""
    path = tmp_path / "checkout.yaml"
    profile = "\n  cacheProfileRef: {name: shared}"
    path.write_text(POLICY.format(profile=profile) + PROFILE.format(endpoint=redis.endpoint, prefix="p5."))
    async with started(path, store="redis://127.0.0.1:1") as (service, _):
        await until(lambda: service.view.cache_health().profiles["shop/shared"].status is CountingStatus.HEALTHY)
        await until(lambda: service.view.cache_health().status is CountingStatus.DEGRADED)
        own = service.view.cache_health().profiles["default"].l2
    async with started(path, store=f"redis://{redis.endpoint}", compat="envoyproxy") as (service, _):
        await until(lambda: service.view.cache_health().profiles["default"].status is CountingStatus.HEALTHY)
    async with started(path, compat="envoyproxy") as (service, _):
        memory = service.view.cache_health().profiles["default"].l1

    assert own is not None
    assert "127.0.0.1:1" in own.problems[0]
    assert memory is not None
    assert not memory.full


@on_loop
async def test_a_store_is_closed_with_its_last_policy(tmp_path: Path, redis: RedisServer) -> None:
    """The domain counts in the service's own memory then, and the profile's metrics are gone."""
    path = tmp_path / "checkout.yaml"
    profile = "\n  cacheProfileRef: {name: shared}"
    path.write_text(POLICY.format(profile=profile) + PROFILE.format(endpoint=redis.endpoint, prefix="p2."))
    async with started(path) as (service, client):
        await connected(service)
        await admitted([client], "few", 6)
        path.write_text(POLICY.format(profile=""))
        await until(lambda: service.snapshot is not None and not service.snapshot.backends)
        anew = await admitted([client], "few", 6)
        shown = metrics_of(service)

    assert anew == 5
    assert "shop/shared" not in shown


@on_loop
async def test_without_a_server_the_failure_mode_decides(tmp_path: Path) -> None:
    """Closed: nothing passes, nothing fails, and the start does not wait for Redis."""
    path = tmp_path / "checkout.yaml"
    path.write_text(POLICY.format(profile=""))
    async with started(path, store="redis://127.0.0.1:1", deadline="100ms") as (service, client):
        passed = await admitted([client], "few", 3)
        shown = metrics_of(service)

    assert passed == 0
    assert 'tidegate_decision_sources_total{source="fallback"} 3' in shown
    assert 'tidegate_store_node_up{profile="default",node="127.0.0.1:1"} 0' in shown


UPSTREAM = """\
domain: shop.checkout
descriptors:
- {key: few, rate_limit: {unit: hour, requests_per_unit: 5}}
"""


@on_loop
async def test_compat_counts_under_the_originals_keys(tmp_path: Path, redis: RedisServer) -> None:
    """Plain counters that envoyproxy/ratelimit would go on with; denied hits count too."""
    path = tmp_path / "config.yaml"
    path.write_text(UPSTREAM)
    store = f"redis://{redis.endpoint}/4?command_timeout=5s&connect_timeout=5s"
    async with started(path, store=store, compat="envoyproxy") as (_, client):
        await until(lambda: redis.answers("PING") == "PONG")
        passed = await admitted([client], "few", 8)
        (key,) = redis.cli("-n", "4", "KEYS", "shop.checkout*").split()

    assert passed == 5
    assert key.strip('"').startswith("shop.checkout_few_ann_")
    assert redis.cli("-n", "4", "GET", key.strip('"')).strip() == "8"


@on_loop
async def test_compat_fails_a_call_when_its_store_is_away(tmp_path: Path) -> None:
    """UNKNOWN, as the original: Envoy's own failure mode then decides."""
    path = tmp_path / "config.yaml"
    path.write_text(UPSTREAM)
    async with started(path, store="redis://127.0.0.1:1", compat="envoyproxy", deadline="100ms") as (_, client):
        with pytest.raises(CallFailed) as failed:
            await client.ask(ask("few"), timeout_s=25)

    assert failed.value.code is GrpcCode.UNKNOWN


def test_a_service_that_starts_before_its_redis_says_so_and_recovers(tmp_path: Path) -> None:
    """It is ready and decides by the failure mode; log, health and bound tell it, and no restart is needed."""
    require_redis()
    server = RedisServer(tmp_path, RedisOptions())
    text = POLICY.format(profile="").replace("onStoreError: Closed", "onStoreError: Share")
    policy_folder(tmp_path, text)
    store = f"redis://{server.endpoint}?command_timeout=5s&connect_timeout=5s"
    with serving(tmp_path, "--store", store, "--deadline", "20s", transport="native") as running:
        ready = running.page("/readyz")[0]
        check(running, "--domain", "shop.checkout", "few=ann", "--timeout", "25")
        unbounded = 'tidegate_admission_bound{domain="shop.checkout",rule="few"} +Inf\n' in running.page("/metrics")[1]
        running.until("what the log says", lambda: "store fails" in running.output(), START_S)
        try:
            server.start()
            running.until_connected()
            running.until("what the log says", lambda: "store works again" in running.output(), START_S)
            check(running, "--domain", "shop.checkout", "few=bob", "--timeout", "25")
            sources = running.page("/metrics")[1]
        finally:
            server.kill()

    assert ready == 200
    assert unbounded
    assert 'tidegate_decision_sources_total{source="exact"} 1\n' in sources
