"""Whole service processes that follow operators, over real sockets, disks and certificates."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit_operator.plan.distribution import Enforcement, ResourceId
from ratelimit_operator.xds.bootstrap import bootstrap_parts, part_key
from ratelimit_operator.xds.credentials import ServerTls
from ratelimit_operator.xds.server import XdsServer, XdsSettings
from support.ads_server import FakeGateway
from support.certificates import Authority
from support.distributions import distribution, manifest_resource, policies, policy_resource
from support.xds_service import XdsService, following

P0 = ResourceId("Policy", "shop/p0")


@contextlib.asynccontextmanager
async def operating(**settings: Any) -> AsyncIterator[XdsServer]:
    server = XdsServer(XdsSettings(**{"address": "127.0.0.1:0", **settings}))
    await server.start()
    server.serve(serving=True)
    try:
        yield server
    finally:
        await server.stop()


def all_run(server: XdsServer, replicas: int = 1) -> bool:
    return set(server.acked().values()) == {replicas}


async def limit_of(service: XdsService, domain: str) -> int | None:
    """Requests of the one limit of a domain of the tests, as the service has it in force."""
    _, text = await service.page("/rlconfig")
    for line in text.splitlines():
        if line.startswith(f"{domain}."):
            return int(line.partition("requests_per_unit=")[2].partition(",")[0])
    return None


def test_a_replica_follows_what_is_published(tmp_path: Path) -> None:
    """Unready before it has anything; then a change, a new policy, a deleted one, each acknowledged when in force."""

    async def check() -> None:
        async with operating() as server, following(tmp_path, server.address) as service:
            assert not await service.is_ready()
            server.publish(policies(2))
            await service.until("a set", service.is_ready)
            await service.until("the count", lambda: all_run(server))
            assert not await service.is_over("shop.p0", "ann", hits=5)
            assert await service.is_over("shop.p0", "ann")
            server.publish(policies(2, p0=6))
            await service.until("the change", lambda: all_run(server))
            # The count goes on: one more fits now.
            assert not await service.is_over("shop.p0", "ann")
            assert await service.is_over("shop.p0", "ann")
            server.publish(policies(3, p0=6))
            await service.until("the new policy", lambda: all_run(server))
            assert await service.is_over("shop.p2", "ann", hits=6)
            server.publish(policies(1, p0=6))
            await service.until("the deletion", lambda: server.nodes()["pod-1"].is_synced)
            assert not await service.is_over("shop.p2", "ann", hits=6)
            assert await service.metric("tidegate_config_domains") == 1
            assert await service.metric("tidegate_config_rules") == 1
            assert await service.metric("tidegate_xds_connected") == 1
            assert await service.metric("tidegate_xds_streams_total") == 1
            assert service.stop() == 0

    asyncio.run(check())


def test_the_kill_switch_is_live_without_a_restart(tmp_path: Path) -> None:
    """Shadow counts and rejects nothing, and shows it; Enforce rejects again, with the counts of meanwhile."""

    async def check() -> None:
        async with operating() as server, following(tmp_path, server.address) as service:
            policy = policy_resource("p0")
            server.publish(distribution(policy))
            await service.until("a set", service.is_ready)
            assert await service.is_over("shop.p0", "ann", hits=6)
            assert await service.metric("tidegate_config_shadow") == 0
            server.publish(distribution(policy, enforcement=Enforcement.SHADOW))
            await service.until("the switch", lambda: all_run(server))
            assert not await service.is_over("shop.p0", "ann", hits=6)
            assert await service.metric("tidegate_config_shadow") == 1
            server.publish(distribution(policy))
            await service.until("the switch", lambda: all_run(server))
            assert await service.is_over("shop.p0", "ann", hits=6)
            assert await service.metric("tidegate_config_shadow") == 0

    asyncio.run(check())


def test_what_this_replica_cannot_run_is_refused_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A profile whose secret is not mounted here: told with its field, and nothing that runs is touched."""

    async def check() -> None:
        store = {"type": "Redis", "endpoints": ["127.0.0.1:1"], "auth": {"secretRef": {"name": "absent"}}}
        profile = manifest_resource("CacheProfile", "shared", {"store": store})
        using = policy_resource("p1", cacheProfileRef={"name": "shared"})
        async with operating() as server, following(tmp_path, server.address) as service:
            server.publish(policies(1))
            await service.until("a set", lambda: all_run(server))
            server.publish(distribution(policy_resource("p0", requests=9), using, profile))
            await service.until("the refusal", lambda: profile.id in server.quarantined())
            assert server.quarantined()[profile.id].startswith("spec.store: ")
            # Without the profile the policy that names it is refused in its turn; all else is in force.
            await service.until("the rest", lambda: server.acked_of(P0) == 1)
            assert await limit_of(service, "shop.p0") == 9
            assert (await service.page("/readyz"))[0] == 200

    asyncio.run(check())


def test_a_replica_starts_from_its_own_snapshot_while_the_operator_is_away(tmp_path: Path) -> None:
    """Ready at once, and nothing is sent again when the operator is back."""

    async def check() -> None:
        kept = tmp_path / "kept"
        async with operating() as server:
            server.publish(policies(3))
            async with following(tmp_path, server.address, "--xds-snapshot", str(kept)) as service:
                await service.until("a set", lambda: all_run(server))
                assert service.stop() == 0
            address = server.address
        async with following(tmp_path, address, "--xds-snapshot", str(kept)) as service:
            await service.until("the snapshot", service.is_ready)
            assert await service.is_over("shop.p1", "ann", hits=6)
            assert await service.metric("tidegate_xds_connected") == 0
            async with operating(address=address) as server:
                server.publish(policies(3))
                await service.until("the count", lambda: all_run(server))
                assert server.stats.responses == 0
                await service.until("the stream", lambda: service.shows("tidegate_xds_connected 1"))

    asyncio.run(check())


def test_a_cold_replica_starts_from_the_bootstrap(tmp_path: Path) -> None:
    """In as many parts as it has; the newer of snapshot and bootstrap wins, a broken one is told and passed over."""

    async def check() -> None:
        bootstrap, kept = tmp_path / "bootstrap", tmp_path / "kept"
        bootstrap.mkdir()
        kept.mkdir()
        for number, part in enumerate(bootstrap_parts(policies(2, p0=7), 2_000_000)):
            (bootstrap / part_key(number)).write_bytes(part)
        (older,) = bootstrap_parts(policies(2, p0=3), 1_000_000)
        (kept / "last.snapshot.gz").write_bytes(older)
        flags = ("--xds-snapshot", str(kept), "--xds-bootstrap", str(bootstrap))
        async with following(tmp_path, "127.0.0.1:1", *flags) as service:
            await service.until("the bootstrap", service.is_ready)
            assert await limit_of(service, "shop.p0") == 7
        (bootstrap / part_key(0)).write_bytes(b"broken")
        async with following(tmp_path, "127.0.0.1:1", *flags) as service:
            await service.until("the snapshot", service.is_ready)
            assert await limit_of(service, "shop.p0") == 3
            assert "cannot be read" in service.output()

    asyncio.run(check())


def test_every_address_is_tried_until_one_accepts(tmp_path: Path) -> None:
    """One is not there, one does not hold the lease; when the holder stops, the other one takes over."""

    async def check() -> None:
        async with operating() as first, operating() as second:
            first.serve(serving=False)
            for server in (first, second):
                server.publish(policies(1))
            servers = f"127.0.0.1:1,{first.address},{second.address}"
            async with following(tmp_path, servers) as service:
                await service.until("the holder", lambda: all_run(second))
                assert first.nodes() == {}
                second.serve(serving=False)
                first.serve(serving=True)
                await service.until("the new holder", lambda: all_run(first))
                # It had it already.
                assert first.stats.responses == 0
                assert await service.is_over("shop.p0", "ann", hits=6)

    asyncio.run(check())


def test_a_replica_shows_its_certificate_and_takes_rotated_ones(tmp_path: Path) -> None:
    """Both sides are given new files by a new authority; the next stream uses them."""

    async def check() -> None:
        old = Authority(tmp_path, "old")
        cert, key = old.issue("server")
        own_cert, own_key = old.issue("replica", dns="tidegate-service")
        tls = ServerTls(cert, key, old.ca_path, ("tidegate-service",))
        flags = ("--xds-ca", str(old.ca_path), "--xds-cert", str(own_cert), "--xds-key", str(own_key))
        async with operating(tls=tls) as server:
            server.publish(policies(1))
            async with following(tmp_path, server.address, *flags) as service:
                await service.until("a set", lambda: all_run(server))
                new = Authority(tmp_path, "new")
                fresh = (*new.issue("server-2"), *new.issue("replica-2", dns="tidegate-service"), new.ca_path)
                for path, content in zip((cert, key, own_cert, own_key, old.ca_path), fresh, strict=True):
                    path.write_bytes(content.read_bytes())
                server.serve(serving=False)
                server.serve(serving=True)
                server.publish(policies(1, p0=6))
                await service.until("the new certificates", lambda: all_run(server))

    asyncio.run(check())


def test_a_replica_with_an_expired_certificate_goes_on_with_what_it_has(tmp_path: Path) -> None:
    """And says why there is no operator."""

    async def check() -> None:
        authority, kept = Authority(tmp_path), tmp_path / "kept"
        kept.mkdir()
        (part,) = bootstrap_parts(policies(1), 1_000_000)
        (kept / "last.snapshot.gz").write_bytes(part)
        cert, key = authority.issue("replica", expired=True)
        flags = ("--xds-ca", str(authority.ca_path), "--xds-cert", str(cert), "--xds-key", str(key))
        tls = ServerTls(*authority.issue("server"), authority.ca_path)
        async with (
            operating(tls=tls) as server,
            following(tmp_path, server.address, *flags, "--xds-snapshot", str(kept)) as service,
        ):
            await service.until("the snapshot", service.is_ready)
            await service.until("the reason", lambda: "no operator" in service.output())
            assert await service.is_over("shop.p0", "ann", hits=6)

    asyncio.run(check())


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    """What is in force stays in force, and the next change arrives."""

    async def check() -> None:
        async with operating() as server, following(tmp_path, server.address) as service:
            server.publish(policies(1))
            await service.until("a set", lambda: all_run(server))
            os.kill(child_of(service.process.pid), signal.SIGKILL)
            await service.until("the end", lambda: not server.nodes())
            assert await service.is_over("shop.p0", "ann", hits=6)
            server.publish(policies(2))
            await service.until("the change", lambda: all_run(server))
            assert await service.is_over("shop.p1", "ann", hits=6)

    asyncio.run(check())


def test_upstreams_type_alone_is_enough(tmp_path: Path) -> None:
    """As Envoy Gateway starts and feeds envoyproxy/ratelimit: by environment, with nothing but its own resource."""

    async def check() -> None:
        async with FakeGateway() as gateway:
            environment = {
                "CONFIG_TYPE": "GRPC_XDS_SOTW",
                "CONFIG_GRPC_XDS_SERVER_URL": gateway.address,
                "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit",
            }
            gateway.offer({"eg": {"domain": "eg", "descriptors": [user_limit(5)]}})
            async with following(tmp_path, "", node="eg", environment=environment) as service:
                await service.until("a set", service.is_ready)
                assert not await service.is_over("eg", "ann", hits=5)
                assert await service.is_over("eg", "ann")
                assert gateway.nodes == {"envoy-ratelimit"}
                gateway.offer({"eg": {"domain": "eg", "descriptors": [user_limit(0, unit="unknown")]}})
                await service.until("the refusal", lambda: gateway.nacks)
                assert "invalid rate limit unit" in gateway.nacks[0]
                assert await service.is_over("eg", "ann")
                gateway.offer({"eg": {"domain": "eg", "descriptors": [user_limit(50)]}})
                await service.until("the change", lambda: gateway.acked == gateway.version)
                assert not await service.is_over("eg", "ann")

    asyncio.run(check())


def child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(child)


def user_limit(requests: int, unit: str = "minute") -> dict[str, Any]:
    return {"key": "user", "rate_limit": {"unit": unit, "requests_per_unit": requests}}


@pytest.mark.slow
def test_three_replicas_and_one_that_cannot(tmp_path: Path) -> None:
    """One lacks a secret that the others have: it alone is marked, and the policy is live on the rest."""

    async def check() -> None:
        secrets = tmp_path / "secrets" / "shop" / "pass"
        secrets.mkdir(parents=True)
        (secrets / "password").write_text("x")
        store = {"type": "Redis", "endpoints": ["127.0.0.1:1"], "auth": {"secretRef": {"name": "pass"}}}
        profile = manifest_resource("CacheProfile", "shared", {"store": store})
        using = policy_resource("p1", cacheProfileRef={"name": "shared"})
        mounted = ("--secrets-dir", str(tmp_path / "secrets"))
        async with (
            operating() as server,
            following(tmp_path, server.address, *mounted, node="a") as first,
            following(tmp_path, server.address, *mounted, node="b"),
            following(tmp_path, server.address, node="c"),
        ):
            server.publish(policies(1))
            await first.until("a set", lambda: all_run(server, 3))
            server.publish(distribution(policy_resource("p0", requests=9), using, profile))
            await first.until("two of three", lambda: server.acked_of(profile.id) == 2)
            await first.until("the rest", lambda: server.acked_of(P0) == 3)

            assert server.quarantined() == {}
            assert set(server.nodes()["c"].refused) == {str(profile.id), str(using.id)}
            assert sorted(server.nodes()) == ["a", "b", "c"]

    asyncio.run(check())
