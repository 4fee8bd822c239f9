"""One installation in small, whole and under load: what each alert watches is there and can be broken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from e2e.alerts.load import Load
from e2e.alerts.quickened import quickened
from e2e.api.conftest import install
from e2e.cluster.build import find
from e2e.support.api_proxy import Proxy, api_proxy
from e2e.support.api_server import ApiServer, api_server
from e2e.support.fault_link import fault_link
from e2e.support.front import front
from e2e.support.kube import Kube
from e2e.support.operators import QUICK, Operator, operator
from e2e.support.processes import eventually
from e2e.support.prometheus import RULES, Prometheus, prometheus
from e2e.support.replicas import Replica, replica
from e2e.support.service import Service
from e2e.support.service import service as one_service
from support.fault_proxy import FaultProxy
from support.redis_servers import RedisServer, free_port, running_server

Manifest = dict[str, Any]

LIST_INTERVAL: Final = "2s"
"""Of the operator; the quickened alert of stale watches waits for three of them."""
GUARDED: Final = 12
"""Policies that the operator has: enough that losing most of them at once is held back."""
QUICK_S: Final = 1.0
"""Less than the quickened alert of slow propagation asks for."""
UNMOUNTED: Final = "absent"
"""A secret of the namespace `shop` that the operator was told of and no replica has."""
MANY_RULES: Final = 30
"""More than `alone` shows series of."""


def policy(name: str, rules: Sequence[Mapping[str, Any]], **spec: object) -> Manifest:
    """A policy for the domain `shop.<name>`."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"domain": f"shop.{name}", "rules": list(rules), **spec},
    }


def rule(name: str, key: str, requests: int, **fields: object) -> Manifest:
    """A rule that counts each value of a key by itself, in an hour."""
    return {
        "name": name,
        "match": [{"key": key, "type": "Any"}],
        "limits": [{"requests": requests, "window": "1h"}],
        **fields,
    }


POLICIES: Final = (
    policy("checkout", [rule("per-user", "user", 1_000_000), rule("per-plan", "plan", 3)]),
    policy("search", [rule("trial", "api_key", 3, mode="Shadow")]),
)
"""What every service that reads files begins with."""


class ControlPlane:
    """An API server behind a proxy, an operator that may be killed and started again, and a replica that follows it."""

    def __init__(self, api: ApiServer, proxy: Proxy, folder: Path, stack: ExitStack) -> None:
        self.kube: Kube = api.kube()
        self.proxy = proxy
        self._api = api
        self._folder = folder
        self._stack = stack
        self._started = 0
        self._changes = 0
        self.operator: Operator = self._start("127.0.0.1:0")
        self.replica: Replica = stack.enter_context(replica(folder, "follower", [self.operator.xds]))

    def restart(self) -> None:
        """Start another operator in the place of one that has ended; it need not be ready."""
        self.operator = self._start(self.operator.xds)

    def _start(self, xds: str) -> Operator:
        flags = list(QUICK)
        flags[flags.index("--list-interval") + 1] = LIST_INTERVAL
        flags += ["--xds", xds, "--secret-mount", f"shop/{UNMOUNTED}"]
        self._started += 1
        name = f"operator-{self._started}"
        started = operator(self._api, self._folder, name=name, server=self.proxy.url, quick=flags)
        return self._stack.enter_context(started)

    def settle(self) -> None:
        """Wait until the operator is ready and a change is live at once again, as its gauge tells of the newest one."""
        eventually("a ready operator", lambda: self.operator.is_ready and self.operator.leads, 60)
        eventually("the replica's stream", lambda: self.operator.metric("xds_clients") == 1, 60)
        eventually("the end of every hold", lambda: not self.operator.metric("xds_held"), 60)
        eventually("a change that is live at once", self._is_quick, 60)

    def _is_quick(self) -> bool:
        self._changes += 1
        self.apply(policy("changing", [rule("per-user", "user", self._changes)]))
        told = re.search(
            r"^tidegate_operator_propagation_seconds (\S+)$", self.operator.page("/metrics")[1], re.MULTILINE
        )
        return told is not None and float(told[1]) < QUICK_S

    def apply(self, manifest: Manifest) -> None:
        self.kube.apply(manifest).good()

    def delete(self, manifest: Manifest) -> None:
        self.kube.delete(manifest).good()


class World:
    """Everything that runs.

    Attributes:
        prometheus: Scrapes all of it and judges the quickened rules.
        redis, link: Where `first` and `second` count, and the link between.
        first, second: Two replicas of one job, which read policies from files.
        alone: A service that counts in memory, for few keys, and shows few series.
        edge, front: A service, and the Envoy that asks it.
        plane: The operator's side.
        load: Calls to all of these.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.redis: RedisServer = stack.enter_context(running_server())
        self.link: FaultProxy = stack.enter_context(fault_link(self.redis.port))
        store = ("--store", f"redis://127.0.0.1:{self.link.port}", "--slots", "2")
        self.first = self._service(stack, "first", *store)
        self.second = self._service(stack, "second", *store)
        self.alone = self._service(stack, "alone", "--store-max-keys", "50", "--metrics-max-series", "20")
        self._stack = stack
        self._edge_port = free_port()
        self.edge = self._edge()
        api = stack.enter_context(api_server(find(), _made(folder / "api")))
        install(api)
        # Profiles with stores of their own are for such namespaces.
        api.kube().namespace("shop", platform="true")
        proxy = stack.enter_context(api_proxy(api))
        self.plane = ControlPlane(api, proxy, folder, stack)
        self.kept = [policy(f"kept{number}", [rule("per-user", "user", 5)]) for number in range(GUARDED)]
        for manifest in self.kept:
            self.plane.apply(manifest)
        self.plane.settle()
        self.front = stack.enter_context(front(folder / "envoy", self._edge_port))
        quick = folder / "rules.yaml"
        quick.write_text(quickened(RULES.read_text(encoding="utf-8")), encoding="utf-8")
        targets = {
            "shared": [self.first.admin, self.second.admin],
            "alone": [self.alone.admin],
            "edge": [self.edge.admin],
            "follower": [self.plane.replica.admin],
            "operator": [self.plane.operator.admin],
            "envoy": [self.front.admin],
            "late": [],
        }
        self.load: Load = stack.enter_context(Load(self.front.address))
        for each in (self.first, self.second):
            self.load.add(each.grpc, "shop.checkout", "user", "user-#")
        self.load.add(self.alone.grpc, "shop.checkout", "user", "ann")
        self.prometheus: Prometheus = stack.enter_context(prometheus(folder, targets, rules=quick, every="500ms"))

    def _service(self, stack: ExitStack, name: str, *flags: str) -> Service:
        return stack.enter_context(one_service(_made(self.folder / name), POLICIES, "native", flags))

    def _edge(self) -> Service:
        # Its first address is free at every start, the second one is where Envoy looks.
        return self._service(self._stack, "edge", "--grpc", f"127.0.0.1:{self._edge_port}")

    def restart_edge(self) -> None:
        """Start another service in the place of one that was killed."""
        self.edge = self._edge()
        self.prometheus.scrape("edge", [self.edge.admin])

    def firing(self, alert: str, seconds: float) -> bool:
        """Whether it has fired within the last seconds."""
        expr = f'count_over_time(ALERTS{{alertname="{alert}", alertstate="firing"}}[{max(1, round(seconds))}s])'
        return bool(self.prometheus.query(expr))

    def watch_operator(self) -> None:
        """Scrape the operator that runs now."""
        self.prometheus.scrape("operator", [self.plane.operator.admin])


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """All of it, under load, gone when the block ends. The load goes to loopback only."""
    with ExitStack() as stack:
        yield World(folder, stack)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
