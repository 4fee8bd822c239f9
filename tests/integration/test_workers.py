"""`tidegate serve --workers`: several processes that serve as one, over a real Redis."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service.transport.client import CallFailed, RateLimitClient
from ratelimit_service.transport.tls import ClientTls
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.certificates import Authority
from support.redis_servers import RedisServer
from support.service_process import START_S, Running, policy_folder, serving, tidegate
from support.transports import on_loop

POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: checkout, namespace: shop}
spec:
  domain: shop.checkout
  failure: {onStoreError: Closed}
  rules:
  - {name: few, match: [{key: few, type: Any}], limits: [{requests: 5, window: 1h}]}
  - {name: free, match: [{key: free, type: Any}], limits: [{requests: 1000000, window: 1h}]}
"""


FEW = 'domain="shop.checkout",rule="few"'
RESULTS = ("ok", "over")


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A folder with one policy."""
    return policy_folder(tmp_path, POLICY)


_databases = iter(range(16))


@pytest.fixture
def flags(redis: RedisServer) -> tuple[str, ...]:
    """Two workers over an empty database, with deadlines that no loaded machine misses."""
    store = f"redis://{redis.endpoint}/{next(_databases)}?command_timeout=5s&connect_timeout=5s"
    return ("--workers", "2", "--store", store, "--deadline", "20s")


def ask(key: str, value: str = "ann") -> Request:
    """One hit."""
    return Request(b"shop.checkout", (Descriptor(((key.encode(), value.encode()),)),))


@asynccontextmanager
async def clients(target: str, count: int, tls: ClientTls | None = None) -> AsyncIterator[list[RateLimitClient]]:
    """So many connections, each of which has answered a call."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            client = await stack.enter_async_context(RateLimitClient(target, tls, own_connection=True))
            await client.ask(ask("free"), timeout_s=25)
            made.append(client)
        yield made


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}/stat").exists()


def workers(running: Running) -> list[dict[str, Any]]:
    """`/debug/workers`."""
    states: list[dict[str, Any]] = json.loads(running.page("/debug/workers")[1])
    return states


@on_loop
async def test_workers_share_a_budget_and_the_connections(
    tmp_path: Path, policies: Path, flags: tuple[str, ...]
) -> None:
    """Each is a replica; connections go to each in turn; one limit holds over all, and one scrape shows all."""
    with serving(tmp_path, *flags, transport="native") as running:
        async with clients(running.grpc, 4) as connected:
            verdicts = [await each.ask(ask("few"), timeout_s=25) for _ in range(3) for each in connected]
            running.until(
                "a slot for each", lambda: running.value('tidegate_store_replicas{profile="default"}') == 2, 30
            )
            running.until("the connections", lambda: [each["connections"] for each in workers(running)] == [2, 2], 30)
            decided = [running.value(f'tidegate_decisions_total{{{FEW},result="{result}"}}') for result in RESULTS]
            counters = json.loads(running.page("/counters?domain=shop.checkout")[1])
            accepted = running.value("tidegate_connections_accepted_total")
        ready, body = running.page("/readyz")
        pages = {path: running.page(path)[0] for path in ("/", "/livez", "/healthcheck", "/rlconfig", "/debug/config")}
        missing = running.page("/nowhere")[0]
        code = running.stop()

    assert sum(not verdict.over for verdict in verdicts) == 5
    assert decided == [5, 7]
    assert {row["rule"]: row["used"] for row in counters}["few"] == 5
    assert accepted == 4
    assert (ready, body) == (200, "ok\n")
    assert set(pages.values()) == {200}
    assert missing == 404
    assert code == 0


@on_loop
async def test_a_worker_that_dies_takes_no_other_s_connection_along(
    tmp_path: Path, policies: Path, flags: tuple[str, ...]
) -> None:
    """It is started again, new connections are served all the while, and no sum falls."""
    with serving(tmp_path, *flags, transport="native") as running:
        async with clients(running.grpc, 2) as connected:
            running.until("the connections", lambda: [each["connections"] for each in workers(running)] == [1, 1], 30)
            begun = running.value("tidegate_calls_begun_total")
            os.kill(workers(running)[0]["pid"], signal.SIGKILL)
            survived = 0
            for client in connected:
                try:
                    await client.ask(ask("free"), timeout_s=25)
                    survived += 1
                except CallFailed:
                    continue
            for _ in range(20):
                async with clients(running.grpc, 1):
                    pass
            running.until("the new one", lambda: all(each["ready"] for each in workers(running)), START_S)
            states = workers(running)
            after = running.value("tidegate_calls_begun_total")
        logged = running.output()
        code = running.stop()

    # A client whose worker died connects again by itself; that of the other never notices.
    assert survived >= 1
    assert [each["starts"] for each in states] == [2, 1]
    assert after >= begun
    assert "worker ended, and is started again" in logged
    assert code == 0


@on_loop
async def test_a_reload_reaches_every_worker(tmp_path: Path, policies: Path, flags: tuple[str, ...]) -> None:
    """A good set, a refused one, and a worker that begins after it."""
    with serving(tmp_path, *flags, transport="native") as running:
        (policies / "checkout.yaml").write_text(POLICY.replace("requests: 5", "requests: 7"))
        running.until("the reload", lambda: running.output().count("policies in force") == 4, 30)
        (policies / "bad.yaml").write_text("kind: Nonsense\n")
        running.until("the refusal", lambda: "Nonsense" in running.page("/readyz")[1], 30)
        os.kill(workers(running)[1]["pid"], signal.SIGKILL)
        running.until("the new one", lambda: [each["starts"] for each in workers(running)] == [1, 2], START_S)
        running.until("all of them", lambda: all(each["ready"] for each in workers(running)), START_S)
        async with clients(running.grpc, 2) as connected:
            verdicts = [await each.ask(ask("few"), timeout_s=25) for _ in range(5) for each in connected]
        ready, body = running.page("/readyz")
        running.stop()

    assert sum(not verdict.over for verdict in verdicts) == 7
    assert ready == 200
    assert body.count("Nonsense") == 1


@on_loop
async def test_sigterm_ends_all_without_losing_a_call(
    tmp_path: Path, policies: Path, flags: tuple[str, ...], redis: RedisServer
) -> None:
    """Calls are answered through the delay, on old connections and on new ones; then the slots are free."""
    with serving(tmp_path, *flags, "--drain-delay", "1s", transport="native") as running:
        async with clients(running.grpc, 2) as connected:
            pids = [each["pid"] for each in workers(running)]
            running.process.send_signal(signal.SIGTERM)
            running.until("the drain", lambda: running.page("/readyz")[0] == 503, 30)
            answers = [await each.ask(ask("free"), timeout_s=25) for each in connected]
            async with clients(running.grpc, 1):
                pass
        code = running.process.wait(START_S)

    assert [answer.over for answer in answers] == [False, False]
    assert code == 0
    assert not any(lives(pid) for pid in pids)
    assert "{slots}0" not in redis.cli("--scan")


def test_without_the_parent_workers_end_by_themselves(tmp_path: Path, policies: Path, flags: tuple[str, ...]) -> None:
    """Whatever became of it: nobody would hand them connections, or end them."""
    with serving(tmp_path, *flags, transport="native") as running:
        pids = [each["pid"] for each in workers(running)]
        running.process.kill()
        running.process.wait(START_S)
        running.until("their end", lambda: not any(lives(pid) for pid in pids), START_S)


def test_readiness_is_told_for_each_worker(tmp_path: Path, policies: Path, flags: tuple[str, ...]) -> None:
    """None is ready without policies, and calls are refused, not lost; all are once there are some."""
    (policies / "checkout.yaml").write_text("kind: Nonsense\n")
    with serving(tmp_path, *flags, "--start-without-policies", transport="native") as running:
        before = running.page("/readyz")
        refused = tidegate("check", "--target", running.grpc, "--domain", "shop.checkout", "few=a")
        metric = running.value('tidegate_worker_ready{worker="1"}')
        (policies / "checkout.yaml").write_text(POLICY)
        running.until("readiness", lambda: running.page("/readyz") == (200, "ok\n"), 30)
        ready = [running.value(f'tidegate_worker_ready{{worker="{number}"}}') for number in (0, 1)]
        running.stop()

    assert before[0] == 503
    assert "worker 0 is not ready: no configuration\nworker 1 is not ready: no configuration\n" in before[1]
    assert "UNAVAILABLE" in refused.stderr
    assert (metric, ready) == (0, [1, 1])


@on_loop
async def test_workers_speak_tls_and_share_a_unix_socket(
    tmp_path: Path, policies: Path, flags: tuple[str, ...]
) -> None:
    """The handshake is the worker's; a client without TLS costs nothing."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("server")
    path = f"unix:{tmp_path / 'grpc.sock'}"
    tls = ("--grpc-tls-cert", str(cert), "--grpc-tls-key", str(key))
    with serving(tmp_path, *flags, *tls, transport="native", grpc=path) as running:
        async with clients(path, 2, ClientTls(authority.ca_path, server_name="localhost")) as connected:
            running.until("the connections", lambda: [each["connections"] for each in workers(running)] == [1, 1], 30)
            plain = tidegate("check", "--target", path, "--domain", "shop.checkout", "few=a", "--timeout", "2")
            verdicts = [await each.ask(ask("few"), timeout_s=25) for each in connected]
        running.stop()

    assert plain.returncode == 1
    assert [verdict.over for verdict in verdicts] == [False, False]
    assert not (tmp_path / "grpc.sock").exists()


def test_what_workers_refuse_is_told_by_the_parent(tmp_path: Path, policies: Path, flags: tuple[str, ...]) -> None:
    """Bad policies, a store whose secret is not there, TLS files, an address: exit code 2 and the problem."""
    profile = (
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\nmetadata: {name: p, namespace: shop}\n"
        'spec: {store: {type: Redis, endpoints: ["h:1"], auth: {secretRef: {name: gone}}}}\n'
    )
    listens = ("--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policies", str(policies))
    good = tmp_path / "no-key.pem"
    good.write_text("nothing")
    told = [tidegate("serve", *flags, *listens, "--grpc-tls-cert", str(good), "--grpc-tls-key", str(good))]
    told.append(tidegate("serve", *flags, *listens, "--grpc", "unix:/no/such/folder/x"))
    named = POLICY.replace("domain: shop.checkout", "domain: shop.checkout\n  cacheProfileRef: {name: p}")
    (policies / "checkout.yaml").write_text(named + profile)
    told.append(tidegate("serve", *flags, *listens, "--secrets-dir", str(tmp_path)))
    (policies / "checkout.yaml").write_text("kind: Nonsense\n")
    told.append(tidegate("serve", *flags, *listens))

    assert [done.returncode for done in told] == [2] * 4, [done.stderr for done in told]
    assert "in TLS files:" in told[0].stderr
    assert "/no/such/folder" in told[1].stderr
    assert "CacheProfile" in told[2].stderr
    assert "Nonsense" in told[3].stderr
