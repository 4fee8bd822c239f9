"""Traces of sampled calls at a real OTLP collector, over both transports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import grpc.aio
import pytest

from ratelimit_service.app import Service
from ratelimit_service.assembly.transports import TRANSPORTS
from ratelimit_service.settings import decode_settings
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.otlp_collector import attributes_of, collecting
from support.redis_servers import running_server
from support.transports import on_loop

pytestmark = pytest.mark.usefixtures("signals_given_back")

POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: checkout, namespace: shop}
spec:
  domain: shop.checkout
  rules:
  - {name: few, match: [{key: few, type: Any}], limits: [{requests: 1, window: 1h}]}
"""
METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CALL = METHOD[1:]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A file with one policy."""
    path = tmp_path / "checkout.yaml"
    path.write_text(POLICY)
    return path


def service_of(policy: Path, transport: str, endpoint: str, *more: tuple[str, str]) -> Service:
    values = {
        "--policies": (str(policy),), "--grpc": ("127.0.0.1:0",), "--admin": ("127.0.0.1:0",),
        "--drain-delay": ("0",), "--log-level": ("error",), "--deadline": ("20s",), "--transport": (transport,),
        "--traces-endpoint": (endpoint,), **{flag: (text,) for flag, text in more},
    }  # fmt: skip
    return Service(decode_settings(values, TRANSPORTS))


async def call(target: str, key: str, flags: str | None, domain: bytes = b"shop.checkout") -> bool | None:
    """Ask once, as part of a trace unless `flags` is None; whether it was over, None: an error."""
    metadata = () if flags is None else (("traceparent", f"00-{TRACE}-{PARENT}-{flags}"),)
    body = encode_request(Request(domain, (Descriptor(((key.encode(), b"secret-value"),)),)))
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            return decode_response(await channel.unary_unary(METHOD)(body, metadata=metadata, timeout=25)).over
        except grpc.aio.AioRpcError:
            return None


@pytest.mark.parametrize("transport", sorted(TRANSPORTS))
@on_loop
async def test_sampled_calls_are_spans_with_their_steps(policy: Path, transport: str) -> None:
    """Under the caller's span; what it does not sample, and what has no trace, is not followed."""
    with collecting() as collector:
        service = service_of(policy, transport, collector.endpoint)
        await service.start()
        target = service.grpc_addresses[0]
        answers = [await call(target, "few", flags) for flags in (None, "01", "00", "01")]
        answers.append(await call(target, "few", "01", domain=b""))
        await service.drain()

    calls = collector.named(CALL)
    steps = {span.name: span for span in collector.spans if span.parent_span_id == calls[0].span_id}
    assert answers == [False, True, True, True, None]
    assert [attributes_of(span).get("tidegate.code") for span in calls] == ["OVER_LIMIT", "OVER_LIMIT", None]
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in calls} == {(TRACE, PARENT)}
    assert attributes_of(calls[0])["tidegate.domain"] == "shop.checkout"
    assert attributes_of(calls[2])["rpc.grpc.status_code"] == 3
    assert set(steps) == {"match", "store wait", "verdict"}
    assert attributes_of(steps["store wait"]) == {"tidegate.sources": ("memory",), "tidegate.degraded": False}
    assert calls[0].start_time_unix_nano == steps["match"].start_time_unix_nano
    assert steps["match"].end_time_unix_nano == steps["store wait"].start_time_unix_nano
    assert steps["store wait"].end_time_unix_nano == steps["verdict"].start_time_unix_nano
    assert steps["verdict"].end_time_unix_nano == calls[0].end_time_unix_nano
    assert collector.resources[0]["service.name"] == "tidegate"
    assert not any("secret-value" in str(span) for span in collector.spans)


@on_loop
async def test_waiting_for_redis_is_a_step(policy: Path) -> None:
    """It ends when the answer of the store has come, and names who decided."""
    with collecting() as collector, running_server() as redis:
        store = f"redis://{redis.endpoint}?command_timeout=5s&connect_timeout=5s"
        service = service_of(policy, "native", collector.endpoint, ("--store", store))
        await service.start()
        await asyncio.gather(*(call(service.grpc_addresses[0], "few", "01") for _ in range(3)))
        await service.drain()

    waits = collector.named("store wait")
    assert len(waits) == 3
    assert {attributes_of(span)["tidegate.sources"] for span in waits} <= {("exact",), ("lease",), ("fallback",)}
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in waits)


@on_loop
async def test_a_collector_that_is_away_costs_no_call(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are lost, and the service ends in time."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")
    service = service_of(policy, "native", "http://127.0.0.1:1")
    await service.start()
    answers = [await call(service.grpc_addresses[0], "few", "01") for _ in range(2)]
    async with asyncio.timeout(20):
        await service.drain()

    assert answers == [False, True]
    # The exporter's own thread tries again, after pauses by chance: nothing of it may reach into another test.
    for thread in [each for each in threading.enumerate() if "Otel" in each.name]:
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive()


def test_without_an_endpoint_nothing_of_it_is_imported(policy: Path) -> None:
    """Off costs nothing: neither memory nor a look at a header."""
    program = (
        "import asyncio, sys\n"
        "from ratelimit_service.app import Service\n"
        "from ratelimit_service.assembly.transports import TRANSPORTS\n"
        "from ratelimit_service.settings import decode_settings\n"
        "async def run():\n"
        f"    service = Service(decode_settings({{'--policies': ({str(policy)!r},), '--grpc': ('127.0.0.1:0',),"
        " '--admin': ('127.0.0.1:0',), '--log-level': ('error',), '--drain-delay': ('0',)}, TRANSPORTS))\n"
        "    await service.start()\n"
        "    await service.drain()\n"
        "asyncio.run(run())\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'grpc.'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert done.stdout == "[]\n", done.stderr
