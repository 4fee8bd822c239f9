"""The assembled service on one event loop: start, answers, reload, drain."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.app import Service, StartRefused
from ratelimit_service.clock import Clock
from ratelimit_service.limiter.engine import Limiter, LimiterSettings
from ratelimit_service.quota.health import all_health
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.service_view import ServiceView
from ratelimit_service.settings import decode_settings
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.transport.client import CallFailed, RateLimitClient
from ratelimit_service.transport.contract import Reply
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.encode import encode_response
from ratelimit_service.wire.rls.messages import Descriptor, Request, Status, Verdict
from support.transports import on_loop

pytestmark = pytest.mark.usefixtures("signals_given_back")

POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: checkout, namespace: shop}
spec:
  domain: shop.checkout
  rules:
  - name: per-user
    match: [{key: user, type: Any}]
    limits: [{requests: 2, window: 1h}]
"""
ANN = Request(b"shop.checkout", (Descriptor(((b"user", b"ann"),)),))


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A file with one policy."""
    path = tmp_path / "checkout.yaml"
    path.write_text(POLICY)
    return path


def write(policies: Path, text: str) -> None:
    """Replace the policies."""
    policies.write_text(text)


def made(policies: Path, **flags: str) -> Service:
    """A service on free loopback ports."""
    given = {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_delay": "0", "log_level": "error", **flags}
    values = {"--" + name.replace("_", "-"): (text,) for name, text in given.items()}
    return Service(decode_settings({**values, "--policies": (str(policies),)}, ("grpcio", "native")))


@contextlib.asynccontextmanager
async def started(policies: Path, **flags: str) -> AsyncIterator[tuple[Service, RateLimitClient]]:
    service = made(policies, **flags)
    await service.start()
    try:
        async with RateLimitClient(service.grpc_addresses[0]) as client:
            yield service, client
    finally:
        await service.drain()


async def until(holds: Callable[[], bool]) -> None:
    """Poll, at most 5 s."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 — what is awaited happens in another process
            await asyncio.sleep(0.01)


@on_loop
async def test_grpc_and_json_spend_the_same_budget(policies: Path) -> None:
    """One of two by each: the third is over by either; errors pass through."""
    async with started(policies) as (service, client):
        first = await client.ask(ANN, timeout_s=5)
        second = await service.view.decide(ANN)
        third = await client.ask(ANN, timeout_s=5)
        wrong = await service.view.decide(Request(b"", ANN.descriptors))

    assert [first.over, third.over] == [False, True]
    assert isinstance(second, Verdict)
    assert not second.over
    assert isinstance(wrong, GrpcError)
    assert wrong.code is GrpcCode.INVALID_ARGUMENT


@on_loop
async def test_what_is_in_force_can_be_looked_at(policies: Path) -> None:
    """Snapshot, counters, explanation and metrics are of the same policies."""
    async with started(policies) as (service, client):
        await client.ask(ANN, timeout_s=5)
        usage = await service.view.usage("shop.checkout", 0)
        explained = json.loads(await service.view.explain(ANN))
        metrics = b"".join(service.view.render_metrics()).decode()
        snapshot = service.snapshot

    assert snapshot is not None
    assert list(snapshot.domains) == [b"shop.checkout"]
    assert [use.used for use in usage] == [1]
    assert "per-user" in json.dumps(explained)
    assert "tidegate_ready 1\n" in metrics
    assert "tidegate_request_duration_seconds_count 1\n" in metrics
    assert f'tidegate_config_info{{version="{snapshot.version}"}} 1' in metrics


@on_loop
async def test_a_reload_is_in_force_at_once_and_a_refused_one_is_told(policies: Path) -> None:
    """Readiness stays; its problems name the file."""
    async with started(policies) as (service, _):
        before = service.snapshot
        write(policies, POLICY.replace("requests: 2", "requests: 3"))
        await until(lambda: service.snapshot is not before)
        after = service.snapshot
        write(policies, "kind: Nonsense\n")
        await until(lambda: bool(service.view.readiness().problems))
        readiness = service.view.readiness()

        assert service.snapshot is after
    assert readiness.ready
    assert str(policies) in readiness.problems[0]


@on_loop
async def test_bad_policies_refuse_the_start_with_all_problems(policies: Path) -> None:
    """And nothing is left listening or running."""
    write(policies, POLICY.replace("window: 1h", "windw: 1h").replace("type: Any", "type: Every"))
    service = made(policies)
    with pytest.raises(StartRefused) as caught:
        await service.start()

    assert caught.value.subject == "policies"
    assert len(caught.value.problems) >= 2
    assert service.grpc_addresses == service.admin_addresses == []


@on_loop
async def test_started_without_policies_calls_are_unavailable_until_there_are_some(policies: Path) -> None:
    """Not ready, with the reason; then ready without a restart."""
    write(policies, "kind: Nonsense\n")
    async with started(policies, start_without_policies="true") as (service, client):
        before = service.view.readiness()
        with pytest.raises(CallFailed) as caught:
            await client.ask(ANN, timeout_s=5)
        write(policies, POLICY)
        await until(lambda: service.view.readiness().ready)
        answered = await client.ask(ANN, timeout_s=5)

    assert (before.ready, before.reason) == (False, "no configuration")
    assert caught.value.code is GrpcCode.UNAVAILABLE
    assert not answered.over


@on_loop
async def test_addresses_that_are_taken_are_told_together(policies: Path) -> None:
    """Both, for gRPC and admin."""
    async with started(policies) as (service, _):
        grpc, admin = service.grpc_addresses[0], service.admin_addresses[0]
        with pytest.raises(StartRefused) as caught:
            await made(policies, grpc=grpc, admin=admin).start()

    assert caught.value.subject == "addresses"
    assert [grpc in caught.value.problems[1], admin in caught.value.problems[0]] == [True, True]


class LateDecider:
    """Answers on the loop's next turn, twice: the second answer has nobody to take it."""

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> None:
        answer = encode_response(Verdict(over=True, statuses=(Status(over=True),)))
        for _ in range(2):
            asyncio.get_running_loop().call_soon(reply, answer)


@on_loop
async def test_json_waits_for_a_store_that_answers_later() -> None:
    """The verdict is that of the reply."""
    metrics, store = Metrics("1"), MemoryStore(clock=Clock())
    view = ServiceView(
        version="1",
        limiter=Limiter({"": store}, LimiterSettings(), metrics.counters),
        decider=LateDecider(),
        stores={"": store},
        health=lambda: all_health([]),
        metrics=metrics,
        clock=Clock().read,
        deadline_us=10_000,
    )
    answer = await view.decide(ANN)
    await asyncio.sleep(0)

    assert isinstance(answer, Verdict)
    assert answer.over
    assert view.version == "1"


def test_tls_files_that_are_none_refuse_the_start(policies: Path) -> None:
    """Before anything listens."""
    with pytest.raises(StartRefused) as caught:
        made(policies, grpc_tls_cert=str(policies), grpc_tls_key=str(policies))

    assert caught.value.subject == "TLS files"


@on_loop
async def test_a_signal_drains(policies: Path) -> None:
    """SIGTERM to this very process: not ready at once, then everything is closed and the wait ends."""
    service = made(policies)
    await service.start()
    waiting = asyncio.create_task(service.run_until_signal())
    os.kill(os.getpid(), signal.SIGTERM)
    await waiting

    assert service.view.readiness().reason == "draining"
    assert service.admin_addresses == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
