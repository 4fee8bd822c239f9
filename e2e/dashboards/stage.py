"""Everything that a dashboard shows, running and under load, and a real Prometheus that scrapes it."""

from __future__ import annotations

import contextlib
import random
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from e2e.api.conftest import install
from e2e.cluster.build import MissingBinaries, find
from e2e.support.api_server import api_server
from e2e.support.caller import get
from e2e.support.front import front
from e2e.support.operators import operator
from e2e.support.processes import eventually, running
from e2e.support.prometheus import Prometheus, prometheus
from e2e.support.service import addresses, command
from e2e.support.service import service as one_service
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.redis_servers import running_server

ASK: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
WINDOW: Final = "10s"
"""What `$__rate_interval` stands for here."""


def _policy(name: str, rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"domain": f"shop.{name}", "rules": list(rules)},
    }


def _rule(name: str, key: str, requests: int, **more: object) -> dict[str, Any]:
    limits = [{"requests": requests, "window": "10s", "algorithm": "FixedWindow"}]
    return {"name": name, "match": [{"key": key, "type": "Any"}], "limits": limits, **more}


POLICIES: Final = (
    _policy("checkout", [_rule("per-user", "user", 30), _rule("per-tenant", "tenant", 5000)]),
    _policy("search", [_rule("trial", "api_key", 10, mode="Shadow"), _rule("per-account", "account", 200)]),
)


def filled_in(expr: str) -> str:
    """A query as Grafana sends it when every variable is All."""
    return re.sub(r"\$(?!__rate_interval)\w+", ".+", expr).replace("$__rate_interval", WINDOW)


@contextmanager
def stage(folder: Path) -> Iterator[Prometheus]:
    """Two services over one Redis, an Envoy, an operator where there is an API server, a cache program, and load.

    The load goes to loopback only, at most some hundred calls a second, and ends with the block.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(running_server())
        store = ["--store", f"redis://{redis.endpoint}", "--slots", "2"]
        first = stack.enter_context(one_service(_made(folder / "one"), POLICIES, "native", store))
        second = stack.enter_context(one_service(_made(folder / "two"), POLICIES, "native", store))
        asking = stack.enter_context(front(folder / "envoy", first.grpc_port))
        cached = stack.enter_context(_cache_program(folder, redis.endpoint))
        targets = {"tidegate": [first.admin, second.admin], "program": [cached], "envoy": [asking.admin]}
        controlled = stack.enter_context(_operator(folder))
        if controlled is not None:
            operating, follower = controlled
            targets["operator"] = [operating]
            targets["tidegate"].append(follower)
        watching = stack.enter_context(prometheus(folder, targets))
        stop = threading.Event()
        load = threading.Thread(target=_load, args=(asking.address, [first.grpc, second.grpc], stop))
        load.start()
        stack.callback(load.join)
        stack.callback(stop.set)
        time.sleep(12)
        # A fault that the boards must show: Redis stands still for two seconds, then goes on.
        redis.stop()
        time.sleep(2)
        redis.go_on()
        time.sleep(12)
        yield watching


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _cache_program(folder: Path, endpoint: str) -> Iterator[str]:
    program = [sys.executable, "-m", "e2e.dashboards.cache_program", f"redis://{endpoint}"]
    with running(program, folder / "program.log") as process:
        port = process.await_("its metrics", lambda: re.search(r"metrics (\d+)", process.output()))
        yield f"127.0.0.1:{port[1]}"


@contextmanager
def _operator(folder: Path) -> Iterator[tuple[str, str] | None]:
    """An operator and a replica that follows it and counts in memory; their admin addresses."""
    try:
        binaries = find()
    except MissingBinaries:
        yield None
        return
    with api_server(binaries, _made(folder / "api")) as server:
        install(server)
        kube = server.kube()
        kube.namespace("shop")
        for policy in POLICIES:
            kube.apply(policy)
        with operator(server, _made(folder / "operator"), "--service", "tidegate") as control, ExitStack() as stack:
            policies = ["--xds-snapshot", str(_made(folder / "snapshot"))]
            serve = [*command(Path("unused"), "native", policies)]
            serve[serve.index("--policies") + 1] = f"xds://{control.xds}"
            follower = stack.enter_context(running(serve, folder / "follower.log"))
            _, admin = follower.await_("the operator's policies", lambda: addresses(follower.output()))
            eventually("an acknowledgement", lambda: control.metric("xds_responses_total", "ack") > 0, 30)
            yield control.admin, admin


def _load(envoy: tuple[str, int], services: Sequence[str], stop: threading.Event) -> None:
    """Requests through Envoy and calls of every kind that a board tells apart, until told to stop."""
    chance = random.Random(7)
    with ExitStack() as stack:
        asks = [stack.enter_context(grpc.insecure_channel(each)).unary_unary(ASK) for each in services]
        while not stop.wait(0.01):
            with contextlib.suppress(OSError):
                get(envoy, headers={"x-user": f"user-{int(chance.paretovariate(1)) % 50}"})
            for ask in asks:
                for request in _some(chance):
                    with contextlib.suppress(grpc.RpcError):
                        ask(request, timeout=5)


def _some(chance: random.Random) -> Iterator[bytes]:
    tenant = f"tenant-{chance.randrange(5)}".encode()
    yield encode_request(Request(b"shop.checkout", (Descriptor(((b"tenant", tenant),)),)))
    yield encode_request(Request(b"shop.search", (Descriptor(((b"api_key", b"partner"),)),)))
    yield encode_request(Request(b"shop.search", (Descriptor(((b"account", b"a"),)), Descriptor(((b"nobody", b"x"),)))))
    yield encode_request(Request(b"shop.checkuot", (Descriptor(((b"user", b"x"),)),)))
    # What Envoy's configuration got wrong: no domain. Rare, since each costs the error budget.
    if chance.random() < 0.02:
        yield encode_request(Request(b"", (Descriptor(((b"user", b"x"),)),)))
