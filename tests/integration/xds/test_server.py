"""The ADS server on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest

from ratelimit_operator.plan.distribution import ResourceId
from ratelimit_operator.xds.credentials import InvalidTlsFiles, ServerTls
from ratelimit_operator.xds.server import CannotListen, XdsServer, XdsSettings
from ratelimit_service.wire.xds.discovery import DiscoveryRequest, Nack
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE, decode_config
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, Refusal, decode_any
from support.ads_client import AdsClient, resources_of, until
from support.certificates import Authority
from support.distributions import distribution, policies, policy_resource


@contextlib.asynccontextmanager
async def serving(on_change: Callable[[], None] = lambda: None, **settings) -> AsyncIterator[XdsServer]:
    server = XdsServer(XdsSettings(address="127.0.0.1:0", **settings), on_change)
    await server.start()
    server.serve(serving=True)
    try:
        yield server
    finally:
        await server.stop()


def test_a_replica_is_given_what_is_published_and_counted_when_it_accepts() -> None:
    """From the first subscription to the count of acknowledgements, with a change in between."""

    async def check() -> None:
        changes: list[int] = []
        async with serving(lambda: changes.append(1)) as server, AdsClient(server.address, "pod-1") as client:
            server.publish(policies(2))
            await client.subscribe()
            first = await client.take()
            await until(lambda: set(server.acked().values()) == {1})
            server.publish(policies(2, p1=9))
            assert server.acked_of(ResourceId("Policy", "shop/p1")) == 0
            second = await client.take()
            await until(lambda: set(server.acked().values()) == {1})

            assert sorted(first) == ["Policy shop/p0", "Policy shop/p1", "Settings tidegate/settings"]
            assert first["Policy shop/p0"] == second["Policy shop/p0"]
            assert b'"requests":9' in second["Policy shop/p1"].body
            assert server.nodes()["pod-1"].is_synced
            assert changes
            assert server.propagation_s is not None

    asyncio.run(check())


def test_a_refusal_by_name_quarantines_and_the_rest_goes_on() -> None:
    """The replica gets what it accepted before of the culprit, and the change of another policy."""

    async def check() -> None:
        async with serving() as server, AdsClient(server.address, "pod-1") as client:
            server.publish(policies(2))
            await client.subscribe()
            await client.take()
            server.publish(policies(2, p0=8, p1=9))
            response = await client.receive()
            culprit = resources_of(response)["Policy shop/p1"]
            refusal = Refusal("Policy", "shop/p1", culprit.version, "spec.rules[0]", "not here")
            await client.refuse(response, Nack("1 problem", (refusal,)))
            after = await client.take()
            await until(lambda: server.acked_of(ResourceId("Policy", "shop/p0")) == 1)

            assert b'"requests":8' in after["Policy shop/p0"].body
            assert b'"requests":5' in after["Policy shop/p1"].body
            assert server.quarantined() == {ResourceId("Policy", "shop/p1"): "spec.rules[0]: not here"}
            assert server.acked_of(ResourceId("Policy", "shop/p1")) == 0

    asyncio.run(check())


def test_only_the_holder_of_the_lease_answers() -> None:
    """Before it has it, and after it has lost it, streams end so that clients go elsewhere."""

    async def check() -> None:
        async with serving() as server:
            server.publish(policies(1))
            server.serve(serving=False)
            async with AdsClient(server.address, "pod-1") as early:
                assert await early.end() == (grpc.StatusCode.UNAVAILABLE, "this operator does not hold the lease")
            server.serve(serving=True)
            async with AdsClient(server.address, "pod-1") as client:
                await client.subscribe()
                await client.take()
                server.serve(serving=False)
                assert (await client.end())[0] is grpc.StatusCode.UNAVAILABLE
            await until(lambda: not server.nodes())

    asyncio.run(check())


def test_a_server_that_stops_tells_its_streams() -> None:
    """They connect elsewhere at once instead of waiting for a timeout."""

    async def check() -> None:
        async with serving() as server:
            server.publish(policies(1))
            async with AdsClient(server.address, "pod-1") as client:
                await client.subscribe()
                await client.take()
                await server.stop()
                assert await client.end() == (grpc.StatusCode.UNAVAILABLE, "the server stops")

    asyncio.run(check())


def test_a_client_that_breaks_the_protocol_is_told() -> None:
    """Bytes that are no message, a stream without a name, one with two."""

    async def check() -> None:
        async with serving() as server:
            for body, reason in ((b"\xff", "malformed"), (b"", "names its node")):
                async with AdsClient(server.address, "") as client:
                    await client.call.write(body)
                    code, details = await client.end()
                    assert code is grpc.StatusCode.INVALID_ARGUMENT
                    assert reason in details
            async with AdsClient(server.address, "pod-1") as client:
                await client.subscribe()
                await client.send(DiscoveryRequest(RESOURCE_TYPE, node_id="pod-2"))
                assert "names another one" in (await client.end())[1]

    asyncio.run(check())


def test_a_client_that_comes_again_replaces_itself() -> None:
    """Its old stream may hang in a dead connection for minutes."""

    async def check() -> None:
        async with serving() as server, AdsClient(server.address, "pod-1") as old:
            server.publish(policies(1))
            await old.subscribe()
            await old.take()
            async with AdsClient(server.address, "pod-1") as new:
                await new.subscribe()
                await new.take()
                assert await old.end() == (grpc.StatusCode.ABORTED, "node pod-1 has a newer stream")
                await until(lambda: set(server.acked().values()) == {1})

    asyncio.run(check())


def test_a_client_that_comes_back_is_spared_what_it_runs() -> None:
    """The version survives its stream: nothing is sent, and it counts at once."""

    async def check() -> None:
        async with serving() as server:
            server.publish(policies(3))
            async with AdsClient(server.address, "pod-1") as client:
                await client.subscribe()
                await client.take()
                version = client.version
            await until(lambda: not server.nodes())
            sent = server.stats.responses
            async with AdsClient(server.address, "pod-1") as client:
                await client.subscribe(version)
                await until(lambda: set(server.acked().values()) == {1})
                assert server.stats.responses == sent

    asyncio.run(check())


def test_streams_beyond_the_cap_are_refused() -> None:
    """And there is room again when one has left."""

    async def check() -> None:
        async with serving(max_streams=1) as server:
            server.publish(policies(1))
            async with AdsClient(server.address, "pod-1") as client:
                await client.subscribe()
                await client.take()
                async with AdsClient(server.address, "pod-2") as other:
                    assert (await other.end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
            await until(lambda: server.stats.streams == 0)
            async with AdsClient(server.address, "pod-2") as other:
                await other.subscribe()
                await other.take()

    asyncio.run(check())


def test_a_request_over_the_cap_ends_its_stream() -> None:
    """A megabyte is a refusal of hundreds of resources; more is nothing of ours."""

    async def check() -> None:
        async with serving() as server, AdsClient(server.address, "pod-1") as client:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await client.call.write(bytes(2 * 1024 * 1024))
            assert (await client.end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(check())


def test_a_slow_reader_costs_one_response_and_delays_nobody() -> None:
    """One reads nothing while sets of 5 MiB change; another has each at once, the slow one the last in the end."""

    async def check() -> None:
        rules = [
            {
                "name": f"r{number}",
                "match": [{"key": "k", "value": f"{number}" + "x" * 480}],
                "limits": [{"requests": 5, "window": "1m"}],
            }
            for number in range(64)
        ]
        big = [policy_resource(f"b{number}", rules=rules) for number in range(150)]
        async with (
            serving() as server,
            AdsClient(server.address, "slow", options=(("grpc.http2.bdp_probe", 0),)) as slow,
            AdsClient(server.address, "quick") as quick,
        ):
            await slow.subscribe()
            await quick.subscribe()
            for requests in range(1, 6):
                server.publish(distribution(*big, policy_resource("small", requests=requests)))
                taken = await quick.take()
                assert f'"requests":{requests}'.encode() in taken["Policy shop/small"].body
            assert sum(len(each.body) for each in taken.values()) > 5 * 1024 * 1024
            await slow.take()
            last = await slow.take()
            assert b'"requests":5' in last["Policy shop/small"].body
            await until(lambda: set(server.acked().values()) == {2})
            assert server.stats.responses <= 5 + 2

    asyncio.run(check())


def test_a_client_that_leaves_a_response_unanswered_is_cut_off() -> None:
    """It may come again; meanwhile nothing waits for it."""

    async def check() -> None:
        async with serving(answer_s=0.2) as server, AdsClient(server.address, "pod-1") as client:
            server.publish(policies(1))
            await client.subscribe()
            await client.receive()
            assert (await client.end())[0] is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(check())


def test_a_stream_that_is_reset_is_no_refusal() -> None:
    """Nothing is quarantined, and the client gets the same again when it comes back."""

    async def check() -> None:
        async with serving() as server:
            server.publish(policies(1))
            async with AdsClient(server.address, "pod-1") as client:
                await client.subscribe()
                await client.receive()
            await until(lambda: not server.nodes())
            assert server.quarantined() == {}
            async with AdsClient(server.address, "pod-1") as client:
                await client.subscribe()
                await client.take()
                await until(lambda: set(server.acked().values()) == {1})

    asyncio.run(check())


def test_upstreams_type_is_served_beside_ours() -> None:
    """One resource per domain, and again when it changes; the client is no replica of ours."""

    async def check() -> None:
        async with serving() as server:
            server.publish(policies(1))
            async with AdsClient(server.address, "envoy-ratelimit", type_url=RATE_LIMIT_CONFIG_TYPE) as client:
                await client.subscribe()
                for requests in (5, 7):
                    response = await client.receive()
                    while not response.resources:
                        await client.accept(response)
                        response = await client.receive()
                    await client.accept(response)
                    _, config = decode_config(decode_any(response.resources[0]).value)
                    limit = {"unit": "minute", "requests_per_unit": requests, "name": "shop/p0/per-user"}
                    assert config == {"domain": "shop.p0", "descriptors": [{"key": "user", "rate_limit": limit}]}
                    server.publish(policies(1, p0=7))
                assert server.nodes() == {}

    asyncio.run(check())


def test_an_address_in_use_is_told() -> None:
    """With the address."""

    async def check() -> None:
        async with serving() as server:
            other = XdsServer(XdsSettings(address=server.address))
            with pytest.raises(CannotListen, match=server.address):
                await other.start()
            await other.stop()

    asyncio.run(check())


def mtls(authority: Authority, cert, key) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(authority.ca_path.read_bytes(), key.read_bytes(), cert.read_bytes())


def test_clients_show_a_certificate_with_a_name_on_the_list(tmp_path) -> None:
    """Another name is told; no certificate does not even connect; an expired one neither."""

    async def check() -> None:
        authority = Authority(tmp_path)
        cert, key = authority.issue("server")
        tls = ServerTls(cert, key, authority.ca_path, ("tidegate-service",))
        async with serving(tls=tls) as server:
            server.publish(policies(1))
            good = mtls(authority, *authority.issue("good", dns="tidegate-service"))
            async with AdsClient(server.address, "pod-1", credentials=good) as client:
                await client.subscribe()
                await client.take()
            foreign = mtls(authority, *authority.issue("foreign", dns="somebody"))
            async with AdsClient(server.address, "pod-1", credentials=foreign) as client:
                assert (await client.end())[0] is grpc.StatusCode.PERMISSION_DENIED
            nameless = grpc.ssl_channel_credentials(authority.ca_path.read_bytes())
            expired = mtls(authority, *authority.issue("expired", dns="tidegate-service", expired=True))
            for bad in (nameless, expired):
                async with AdsClient(server.address, "pod-1", credentials=bad) as client:
                    assert (await client.end())[0] is grpc.StatusCode.UNAVAILABLE

    asyncio.run(check())


def test_certificates_are_rotated_without_a_restart(tmp_path) -> None:
    """A new authority for both sides; streams that are open stay; a set that is half replaced keeps the old one."""

    async def check() -> None:
        old = Authority(tmp_path, "old")
        cert, key = old.issue("server")
        tls = ServerTls(cert, key, old.ca_path)
        async with serving(tls=tls) as server:
            server.publish(policies(1))
            before = mtls(old, *old.issue("client"))
            async with AdsClient(server.address, "pod-1", credentials=before) as client:
                await client.subscribe()
                await client.take()
                kept = cert.read_bytes()
                cert.unlink()
                async with AdsClient(server.address, "pod-2", credentials=before) as meanwhile:
                    await meanwhile.subscribe()
                    await meanwhile.take()
                cert.write_bytes(kept)
                new = Authority(tmp_path, "new")
                for path, fresh in zip((cert, key), new.issue("server-2"), strict=True):
                    path.write_bytes(fresh.read_bytes())
                old.ca_path.write_bytes(new.ca_path.read_bytes())
                after = mtls(new, *new.issue("client-2"))
                async with AdsClient(server.address, "pod-3", credentials=after) as late:
                    await late.subscribe()
                    await late.take()
                server.publish(policies(1, p0=7))
                await client.take()

    asyncio.run(check())


def test_tls_files_that_are_missing_are_told(tmp_path) -> None:
    """Before anything is bound."""
    tls = ServerTls(tmp_path / "a.crt", tmp_path / "a.key", tmp_path / "ca.pem")

    with pytest.raises(InvalidTlsFiles, match=r"a\.crt"):
        XdsServer(XdsSettings(tls=tls))
