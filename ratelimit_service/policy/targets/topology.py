"""Gateways, their listeners and the routes on them, as far as attaching a policy needs to know them.

Source: Gateway API, `gateway.networking.k8s.io/v1`: Gateway, HTTPRoute, GRPCRoute. What a controller decides by its
own rules (whether it accepts a route that leads to it) is not repeated here: a patch for a route that was not accepted
matches nothing in Envoy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ratelimit_service.policy.model import TargetKind

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
"""API group of everything here."""

ANY_HOST: Final = "*"


class Requirement(msgspec.Struct, frozen=True):
    """One requirement of a label selector; `operator` is `In`, `NotIn`, `Exists` or `DoesNotExist`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it; an operator that nobody knows is met by none."""
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        if self.operator == "NotIn":
            return labels.get(self.key) not in self.values
        return self.operator == "In" and labels.get(self.key) in self.values


class Listener(msgspec.Struct, frozen=True):
    """One listener of a Gateway.

    Attributes:
        name: Its section name.
        port: Where it listens.
        protocol: `HTTP`, `HTTPS`, …
        hostname: What it accepts; `*`: any.
        same_namespace: Only routes of the Gateway's namespace may attach (the default).
        selector: What the labels of a route's namespace have to meet, all of it; empty: nothing.
    """

    name: str
    port: int
    protocol: str = "HTTP"
    hostname: str = ANY_HOST
    same_namespace: bool = True
    selector: tuple[Requirement, ...] = ()

    def admits(self, labels: Mapping[str, str] | None) -> bool:
        """Whether routes of a namespace with these labels may attach; None, not known: its controller decides."""
        return labels is None or all(each.holds(labels) for each in self.selector)


class Gateway(msgspec.Struct, frozen=True):
    """A Gateway; `created` is its creation time as text, empty: unknown."""

    namespace: str
    name: str
    listeners: tuple[Listener, ...]
    class_name: str = ""
    created: str = ""

    def __str__(self) -> str:
        return f"Gateway {self.namespace}/{self.name}"


class Parent(msgspec.Struct, frozen=True):
    """What a route attaches to: a Gateway, one listener of it, or those on one port."""

    namespace: str
    name: str
    section: str = ""
    port: int = 0


class Route(msgspec.Struct, frozen=True):
    """An HTTPRoute or GRPCRoute.

    Attributes:
        kind: Which of the two.
        namespace, name: Who it is.
        hostnames: As written; empty: those of the listener.
        parents: What it attaches to.
        rules: The name of each of its rules in order, empty: it has none.
        redirects: Rules that answer by themselves; Envoy asks nothing for such.
    """

    kind: TargetKind
    namespace: str
    name: str
    hostnames: tuple[str, ...] = ()
    parents: tuple[Parent, ...] = ()
    rules: tuple[str, ...] = ("",)
    redirects: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"{self.kind.value} {self.namespace}/{self.name}"


class Topology(msgspec.Struct, frozen=True):
    """All that policies can attach to.

    Attributes:
        gateways, routes: What there is.
        namespaces: Labels by namespace, as far as they are known.
    """

    gateways: tuple[Gateway, ...] = ()
    routes: tuple[Route, ...] = ()
    namespaces: Mapping[str, Mapping[str, str]] = {}

    def hostnames(self, gateway: Gateway, listener: Listener, route: Route) -> tuple[str, ...]:
        """Hostnames that a route answers to on a listener; empty: it is not attached to it."""
        if not listener.admits(self.namespaces.get(route.namespace)):
            return ()
        return meeting_hostnames(gateway, listener, route)


class Point(msgspec.Struct, frozen=True):
    """One place where requests pass: a rule of a route on a listener, or what else comes to the listener.

    Attributes:
        gateway, listener: Where requests come in.
        route: The route that takes them, None: any request of the listener that no known route takes.
        rule: Its rule, counted from 0.
        hostnames: What the route answers to on this listener.
    """

    gateway: Gateway
    listener: Listener
    route: Route | None = None
    rule: int = 0
    hostnames: tuple[str, ...] = (ANY_HOST,)


def points(topology: Topology, gateway: Gateway) -> Iterator[Point]:
    """Every place of a Gateway: per listener what no route takes, then each rule of each route on it."""
    for listener in gateway.listeners:
        yield Point(gateway, listener, hostnames=(listener.hostname,))
        for route in topology.routes:
            hostnames = topology.hostnames(gateway, listener, route)
            for rule in range(len(route.rules) if hostnames else 0):
                if rule in route.redirects:
                    continue
                yield Point(gateway, listener, route, rule, hostnames)


def meeting_hostnames(gateway: Gateway, listener: Listener, route: Route) -> tuple[str, ...]:
    """Hostnames that a route answers to on a listener that admits its namespace; empty: it does not lead there."""
    if listener.same_namespace and route.namespace != gateway.namespace:
        return ()
    if not any(_leads_to(parent, gateway, listener) for parent in route.parents):
        return ()
    if not route.hostnames:
        return (listener.hostname,)
    met = (narrower(listener.hostname, hostname) for hostname in route.hostnames)
    return tuple(dict.fromkeys(hostname for hostname in met if hostname))


def _leads_to(parent: Parent, gateway: Gateway, listener: Listener) -> bool:
    return (
        (parent.namespace, parent.name) == (gateway.namespace, gateway.name)
        and parent.section in ("", listener.name)
        and parent.port in (0, listener.port)
    )


def narrower(first: str, second: str) -> str:
    """The hostname that both cover, empty: none. `*.example.com` covers one or more labels before `.example.com`."""
    for wide, narrow in ((first, second), (second, first)):
        if wide in (ANY_HOST, narrow) or (wide.startswith("*.") and narrow.endswith(wide[1:])):
            return narrow
    return ""
