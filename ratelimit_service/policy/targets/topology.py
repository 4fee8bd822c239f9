"""Gateways, their listeners and the routes on them, as far as attaching a policy needs to know them.

Source: Gateway API, `gateway.networking.k8s.io/v1`: Gateway, HTTPRoute, GRPCRoute. What a controller decides by its
own rules (whether it accepts a route, selectors of namespaces) is not repeated here: a patch for a route that was not
accepted matches nothing in Envoy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.model import TargetKind

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
"""API group of everything here."""

ANY_HOST: Final = "*"


class Listener(msgspec.Struct, frozen=True):
    """One listener of a Gateway.

    Attributes:
        name: Its section name.
        port: Where it listens.
        protocol: `HTTP`, `HTTPS`, …
        hostname: What it accepts; `*`: any.
        same_namespace: Only routes of the Gateway's namespace may attach (the default).
    """

    name: str
    port: int
    protocol: str = "HTTP"
    hostname: str = ANY_HOST
    same_namespace: bool = True


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
    """All that policies can attach to."""

    gateways: tuple[Gateway, ...] = ()
    routes: tuple[Route, ...] = ()


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
            hostnames = meeting_hostnames(gateway, listener, route)
            for rule in range(len(route.rules) if hostnames else 0):
                if rule in route.redirects:
                    continue
                yield Point(gateway, listener, route, rule, hostnames)


def meeting_hostnames(gateway: Gateway, listener: Listener, route: Route) -> tuple[str, ...]:
    """Hostnames that a route answers to on a listener; empty: it is not attached to it."""
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


def read_topology(objects: Sequence[Mapping[str, object]]) -> Topology:
    """Gateways and routes among JSON-like objects as the API server or a file gives them; others are passed over.

    What cannot be read is left out: the Gateway's own controller tells its author.
    """
    gateways: list[Gateway] = []
    routes: list[Route] = []
    for item in objects:
        kind = item.get("kind")
        if not is_gateway_api(item):
            continue
        if kind == TargetKind.GATEWAY.value:
            gateways.append(_gateway(item))
        else:
            routes.append(_route(item, TargetKind(kind)))
    return Topology(tuple(gateways), tuple(routes))


def is_gateway_api(item: Mapping[str, object]) -> bool:
    """Whether an object is one that policies can attach to."""
    group = str(item.get("apiVersion", "")).partition("/")[0]
    return group == GATEWAY_GROUP and item.get("kind") in {each.value for each in TargetKind}


def _gateway(item: Mapping[str, object]) -> Gateway:
    spec, metadata = _map(item.get("spec")), _map(item.get("metadata"))
    listeners = []
    for written in _maps(spec.get("listeners")):
        allowed = _map(_map(written.get("allowedRoutes")).get("namespaces")).get("from")
        listeners.append(
            Listener(
                name=_text(written, "name"),
                port=_number(written, "port"),
                protocol=_text(written, "protocol") or "HTTP",
                hostname=_text(written, "hostname") or ANY_HOST,
                same_namespace=allowed not in ("All", "Selector"),
            )
        )
    return Gateway(
        namespace=_namespace(metadata),
        name=_text(metadata, "name"),
        listeners=tuple(listeners),
        class_name=_text(spec, "gatewayClassName"),
        created=_text(metadata, "creationTimestamp"),
    )


def _route(item: Mapping[str, object], kind: TargetKind) -> Route:
    spec, metadata = _map(item.get("spec")), _map(item.get("metadata"))
    namespace = _namespace(metadata)
    parents = [
        Parent(
            _text(parent, "namespace") or namespace,
            _text(parent, "name"),
            _text(parent, "sectionName"),
            _number(parent, "port"),
        )
        for parent in _maps(spec.get("parentRefs"))
        if _text(parent, "kind") in ("", TargetKind.GATEWAY.value)
        and (parent.get("group") is None or _text(parent, "group") == GATEWAY_GROUP)
    ]
    names = spec.get("hostnames")
    hostnames = [str(hostname) for hostname in names] if isinstance(names, list | tuple) else []
    written = _maps(spec.get("rules"))
    redirects = frozenset(
        index
        for index, rule in enumerate(written)
        if any(_text(each, "type") == "RequestRedirect" for each in _maps(rule.get("filters")))
    )
    return Route(
        kind=kind,
        namespace=namespace,
        name=_text(metadata, "name"),
        hostnames=tuple(hostnames),
        parents=tuple(parents),
        rules=tuple(_text(rule, "name") for rule in written) or ("",),
        redirects=redirects,
    )


def _namespace(metadata: Mapping[str, object]) -> str:
    return _text(metadata, "namespace") or "default"


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _maps(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def _text(item: Mapping[str, object], name: str) -> str:
    value = item.get(name)
    return value if isinstance(value, str) else ""


def _number(item: Mapping[str, object], name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
