"""Istio: EnvoyFilters that make its gateways, or the workloads that a policy selects, ask the service (DECISIONS 53).

Names are Istio's own: a Gateway of the Gateway API runs in pods labelled with its name; its virtual hosts are
`<hostname>:<port>`, its routes `<namespace>.<route>.<rule>`, or the rule's name where it has one. Such a name may be
anybody's, so every patch of a route names its virtual host too, and where even that is shared nothing is patched.
Everything is in a stage of its own: somebody else's rate-limit filter reads none of our entries, and ours none of
theirs. Source: istio.io/istio `pilot/pkg/config/kube/gateway/conversion.go`, EnvoyFilter's reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.manifest_compile import place_of
from ratelimit_service.policy.model import RESERVED_DOMAIN, RateLimitPolicy
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.render.actions import Config, blurred, entries_of, union
from ratelimit_service.policy.render.envoy import ignored
from ratelimit_service.policy.render.local import idle_filter, idle_settings, settings_of, standing_rules
from ratelimit_service.policy.render.parts import CLUSTER, ServiceAddress, cluster, denies, http_filter
from ratelimit_service.policy.targets.coverage import Coverage
from ratelimit_service.policy.targets.precedence import Standing, live_rules
from ratelimit_service.policy.targets.topology import Gateway, Listener, Point, Route

STAGE: Final = 9
"""Of our filter and of our `rate_limits`; other people's are in stage 0 unless they say otherwise."""

PRIORITY: Final = 10
"""After EnvoyFilters without one; stated, because relative operations without it are warned of (IST0155)."""

FILTER: Final = "tidegate"
LOCAL: Final = "tidegate-local"
GATEWAY_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
ROOT_NAMESPACE: Final = "istio-system"
"""Where an EnvoyFilter would reach every namespace."""

LABELS: Final = {"app.kubernetes.io/managed-by": "tidegate"}
"""On everything that is rendered for a cluster, so that it can be found and taken away."""


class Ambiguous(msgspec.Struct, frozen=True):
    """Routes that Istio gives one name on one virtual host, so that no patch can tell them apart."""

    host: str
    name: str
    routes: tuple[Route, ...]

    @property
    def message(self) -> str:
        """For people."""
        routes = " and ".join(sorted({str(route) for route in self.routes}))
        return f"{routes} have rules that Istio calls `{self.name}` on `{self.host}`: give the rules other names"


class IstioFilter(msgspec.Struct, frozen=True):
    """An EnvoyFilter, and what could not be put into it.

    Attributes:
        manifest: The EnvoyFilter.
        problems: Told to the authors of policies.
        ambiguous: Routes that are left out.
    """

    manifest: Config
    problems: tuple[Problem, ...] = ()
    ambiguous: tuple[Ambiguous, ...] = ()


def render_gateway(gateway: Gateway, coverage: Coverage, service: ServiceAddress) -> IstioFilter:
    """The one EnvoyFilter of a Gateway of the Gateway API: cluster, filter, virtual hosts, routes."""
    problems: list[Problem] = []
    patches = _clusters(CLUSTER, service, "GATEWAY")
    deciding = coverage.deciding(gateway)
    if any(settings_of(standing_rules(coverage.at(point))) for point in coverage.points(gateway)):
        patches.append(_insert("GATEWAY", idle_filter(LOCAL)))
    patches.append(_insert("GATEWAY", http_filter(FILTER, RESERVED_DOMAIN, deny=denies(deciding), stage=STAGE)))
    names: dict[tuple[str, int, str], list[Point]] = {}
    local_hosts: set[str] = set()
    for point in coverage.points(gateway):
        standing = coverage.at(point)
        for each in blurred(standing):
            if each.problem() not in problems:
                problems.append(each.problem())
        if point.route is None:
            patches += _host_patches(gateway, point, _settings(standing), coverage)
            if settings_of(standing_rules(standing)) is not None:
                local_hosts.add(point.listener.name)
            continue
        for hostname in point.hostnames:
            names.setdefault((hostname, point.listener.port, route_name(point)), []).append(point)
    ambiguous: list[Ambiguous] = []
    for (hostname, port, name), met in names.items():
        lists = [_settings(coverage.at(point), has_local_host=point.listener.name in local_hosts) for point in met]
        if any(each != lists[0] for each in lists):
            routes = tuple(point.route for point in met if point.route is not None)
            ambiguous.append(Ambiguous(f"{hostname}:{port}", name, routes))
        elif lists[0]:
            patches.append(_route_patch(hostname, port, name, lists[0]))
    problems += [ignored(policy, "the Gateway's own policy decides") for policy in coverage.ignored_denials(gateway)]
    problems += [
        Problem(str(gateway), "", f"AmbiguousRouteName: {each.message}", severity=Severity.WARNING)
        for each in ambiguous
    ]
    manifest = _manifest(f"tidegate-{gateway.name}", gateway.namespace, {GATEWAY_LABEL: gateway.name}, patches)
    return IstioFilter(manifest, tuple(problems), tuple(ambiguous))


def render_workload(policy: RateLimitPolicy, service: ServiceAddress, *, platform: bool = False) -> IstioFilter:
    """The EnvoyFilter of a policy with a `workloadSelector`: Istio's own gateways, or sidecars for what comes in.

    The filter carries the whole list, so policies on one workload do not get into one another's way.

    Args:
        policy: Its `workloadSelector` is given.
        service: Where Envoy finds the service.
        platform: The policy's namespace may write into the root namespace, where it would reach every workload.
    """
    selector = policy.spec.workload_selector
    assert selector is not None
    namespace, name = policy.metadata.namespace, policy.metadata.name
    if namespace == ROOT_NAMESPACE and not platform:
        message = f"an EnvoyFilter in {ROOT_NAMESPACE} reaches every namespace: only a platform namespace may write it"
        return IstioFilter({}, (place_of(policy, "spec.workloadSelector").problem(message),))
    own = f"{CLUSTER}-{namespace}-{name}"
    patches = _clusters(own, service, "GATEWAY", "SIDECAR_OUTBOUND")
    limits = entries_of(policy, live_rules(policy))
    local = settings_of([(policy, live_rules(policy))])
    if local is not None:
        # On the filter itself: it is this policy's alone.
        own_local: Config = {"name": f"{LOCAL}/{namespace}/{name}", "typed_config": local}
        patches += [_insert(context, own_local) for context in ("GATEWAY", "SIDECAR_INBOUND")]
    if limits:
        asking = http_filter(
            f"{FILTER}/{namespace}/{name}", RESERVED_DOMAIN, deny=denies(policy), rate_limits=limits, reached_by=own
        )
        patches += [_insert(context, asking) for context in ("GATEWAY", "SIDECAR_INBOUND")]
    manifest = _manifest(f"tidegate-{name}", namespace, dict(selector.match_labels), patches)
    return IstioFilter(manifest)


def route_name(point: Point) -> str:
    """Istio's name of a rule of a route."""
    assert point.route is not None
    written = point.route.rules[point.rule]
    return written or f"{point.route.namespace}.{point.route.name}.{point.rule}"


def _manifest(name: str, namespace: str, labels: dict[str, str], patches: list[Config]) -> Config:
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(LABELS)},
        "spec": {"workloadSelector": {"labels": labels}, "priority": PRIORITY, "configPatches": patches},
    }


def _clusters(name: str, service: ServiceAddress, *contexts: str) -> list[Config]:
    added = cluster(service, name)
    return [
        {"applyTo": "CLUSTER", "match": {"context": context}, "patch": {"operation": "ADD", "value": added}}
        for context in contexts
    ]


def _insert(context: str, asking: Config) -> Config:
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "subFilter": {"name": "envoy.filters.http.router"},
    }
    return {
        "applyTo": "HTTP_FILTER",
        "match": {"context": context, "listener": {"filterChain": {"filter": manager}}},
        "patch": {"operation": "INSERT_BEFORE", "value": asking},
    }


def _settings(standing: Sequence[Standing], *, has_local_host: bool = False) -> Config:
    """What a route or virtual host gets, empty: nothing is in force there."""
    limits = union(standing, STAGE)
    local = settings_of(standing_rules(standing)) or (idle_settings() if has_local_host else None)
    more: Config = {} if local is None else {"typed_per_filter_config": {LOCAL: local}}
    return {"rate_limits": limits, **more} if limits else {}


def _host_patches(gateway: Gateway, point: Point, settings: Config, coverage: Coverage) -> Iterator[Config]:
    """For what no known route takes: every host of a port with one listener, else the known hosts of this one."""
    if not settings:
        return
    listener = point.listener
    hosts: list[Config] = [{}]
    if sum(each.port == listener.port for each in gateway.listeners) > 1:
        hosts = [{"vhost": {"name": f"{name}:{listener.port}"}} for name in _hostnames(gateway, listener, coverage)]
    for host in hosts:
        yield {
            "applyTo": "VIRTUAL_HOST",
            "match": {"context": "GATEWAY", "routeConfiguration": {"portNumber": listener.port, **host}},
            "patch": {"operation": "MERGE", "value": settings},
        }


def _hostnames(gateway: Gateway, listener: Listener, coverage: Coverage) -> list[str]:
    found = {
        hostname: None
        for point in coverage.points(gateway)
        if point.listener == listener and point.route is not None
        for hostname in point.hostnames
    }
    return list(found)


def _route_patch(hostname: str, port: int, name: str, settings: Config) -> Config:
    # Merged into a redirect, `route` would take its place: only routes that forward are patched.
    host = {"name": f"{hostname}:{port}", "route": {"name": name, "action": "ROUTE"}}
    more = {key: value for key, value in settings.items() if key != "rate_limits"}
    return {
        "applyTo": "HTTP_ROUTE",
        "match": {"context": "GATEWAY", "routeConfiguration": {"portNumber": port, "vhost": host}},
        "patch": {"operation": "MERGE", "value": {**more, "route": {"rate_limits": settings["rate_limits"]}}},
    }
