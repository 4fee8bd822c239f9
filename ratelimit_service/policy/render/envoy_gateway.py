"""Envoy Gateway: an EnvoyPatchPolicy per Gateway, in either of its schemes of names.

`listener` (the default of Envoy Gateway 1.9): listeners and route tables are called `<namespace>/<gateway>/<listener>`,
virtual hosts the same with the hostname; of several HTTP listeners on one port the first gives its name to all.
`port` (its runtime flag XDSNameSchemeV2): `tcp-<port>`, `http-<port>`, and the hostname alone.
Routes are `httproute/<namespace>/<route>/rule/<n>/match/<m>/<hostname>` in both; dots of hostnames become underscores.
Source: github.com/envoyproxy/gateway `internal/xds/translator`, v1.9.1.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

from ratelimit_service.policy.manifest_compile import place_of
from ratelimit_service.policy.model import RESERVED_DOMAIN
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.render.actions import Config, blurred, union
from ratelimit_service.policy.render.envoy import Rendered, ignored
from ratelimit_service.policy.render.istio import FILTER, LABELS, STAGE
from ratelimit_service.policy.render.local import settings_of
from ratelimit_service.policy.render.parts import CLUSTER, ServiceAddress, cluster, denies, http_filter
from ratelimit_service.policy.targets.coverage import Coverage
from ratelimit_service.policy.targets.topology import GATEWAY_GROUP, Gateway, Listener, Point

_LISTENER: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
_ROUTES: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_MANAGER: Final = "envoy.filters.network.http_connection_manager"


class Names(enum.Enum):
    """Schemes of names."""

    LISTENER = "listener"
    PORT = "port"


def render_gateway(gateway: Gateway, coverage: Coverage, service: ServiceAddress, names: Names) -> Rendered:
    """The EnvoyPatchPolicy of a Gateway: cluster, filter, virtual hosts, routes."""
    problems: list[Problem] = []
    added: Config = {"op": "add", "path": "", "value": cluster(service)}
    patches = [_patch(_CLUSTER, CLUSTER, added)]
    asking = http_filter(FILTER, RESERVED_DOMAIN, deny=denies(coverage.deciding(gateway)), stage=STAGE)
    for listener in gateway.listeners:
        if _first_on_port(gateway, listener) is listener:
            where = f"$..filters[?(@.name == '{_MANAGER}')].typed_config.http_filters"
            operation: Config = {"op": "add", "jsonPath": where, "path": "/0", "value": asking}
            patches.append(_patch(_LISTENER, listener_name(gateway, listener, names), operation))
    for point in coverage.points(gateway):
        standing = coverage.at(point)
        problems += [found for each in blurred(standing) if (found := each.problem()) not in problems]
        limits = union(standing, STAGE)
        if limits:
            patches += _limit_patches(gateway, point, limits, names, coverage)
    problems += [ignored(policy, "the Gateway's own policy decides") for policy in coverage.ignored_denials(gateway)]
    problems += _without_local(gateway, coverage)
    manifest: Config = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyPatchPolicy",
        "metadata": {"name": f"tidegate-{gateway.name}", "namespace": gateway.namespace, "labels": dict(LABELS)},
        "spec": {
            "targetRef": {"group": GATEWAY_GROUP, "kind": "Gateway", "name": gateway.name},
            "type": "JSONPatch",
            "jsonPatches": patches,
        },
    }
    return Rendered(manifest, tuple(problems))


def _without_local(gateway: Gateway, coverage: Coverage) -> list[Problem]:
    """A patch can set a route's settings per filter, not join them: Envoy Gateway's own would be lost."""
    found = {}
    for point in coverage.points(gateway):
        for each in coverage.at(point):
            if settings_of([(each.policy, each.rules)]) is not None:
                found[id(each.policy)] = place_of(each.policy, "spec").problem(
                    "`local` of its rules is not rendered for Envoy Gateway: use a BackendTrafficPolicy for that",
                    Severity.WARNING,
                )
    return list(found.values())


def listener_name(gateway: Gateway, listener: Listener, names: Names) -> str:
    """Name of the xDS listener."""
    if names is Names.PORT:
        return f"tcp-{listener.port}"
    return _full_name(gateway, _first_on_port(gateway, listener))


def routes_name(gateway: Gateway, listener: Listener, names: Names) -> str:
    """Name of the route table; a listener with TLS has one of its own in both schemes."""
    if _is_tls(listener):
        return _full_name(gateway, listener)
    return f"http-{listener.port}" if names is Names.PORT else _full_name(gateway, _first_on_port(gateway, listener))


def host_name(gateway: Gateway, listener: Listener, hostname: str, names: Names) -> str:
    """Name of a virtual host."""
    short = hostname.replace(".", "_")
    return short if names is Names.PORT else f"{_full_name(gateway, listener)}/{short}"


def _first_on_port(gateway: Gateway, listener: Listener) -> Listener:
    return next(each for each in gateway.listeners if each.port == listener.port)


def _is_tls(listener: Listener) -> bool:
    return listener.protocol in ("HTTPS", "TLS")


def _full_name(gateway: Gateway, listener: Listener) -> str:
    return f"{gateway.namespace}/{gateway.name}/{listener.name}"


def _limit_patches(
    gateway: Gateway, point: Point, limits: list[Config], names: Names, coverage: Coverage
) -> Iterator[Config]:
    table = routes_name(gateway, point.listener, names)
    for hostname in _hostnames(gateway, point, coverage):
        host = f"$.virtual_hosts[?(@.name == '{host_name(gateway, point.listener, hostname, names)}')]"
        if point.route is None:
            where, path = host, "/rate_limits"
        else:
            prefix = f"{point.route.kind.value.lower()}/{point.route.namespace}/{point.route.name}/rule/{point.rule}/"
            # A dot of a name is any character here; the slashes around keep that from meeting another route's name.
            where, path = f"{host}.routes[?(@.name =~ '^{prefix}')].route", "/rate_limits"
        yield _patch(_ROUTES, table, {"op": "add", "jsonPath": where, "path": path, "value": limits})


def _hostnames(gateway: Gateway, point: Point, coverage: Coverage) -> tuple[str, ...]:
    """Hostnames with a virtual host: Envoy Gateway makes one where a route answers."""
    if point.route is not None:
        return point.hostnames
    found = {
        hostname: None
        for each in coverage.points(gateway)
        if each.listener == point.listener and each.route is not None
        for hostname in each.hostnames
    }
    return tuple(found)


def _patch(kind: str, name: str, operation: Config) -> Config:
    return {"type": kind, "name": name, "operation": operation}
