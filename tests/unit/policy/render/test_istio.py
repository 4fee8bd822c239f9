"""EnvoyFilters: whose names they trust, and what they leave alone. That Istio obeys them is for e2e."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.model import RateLimitPolicy, TargetKind
from ratelimit_service.policy.render.istio import IstioFilter, render_gateway, render_workload
from ratelimit_service.policy.render.parts import ServiceAddress
from ratelimit_service.policy.targets.coverage import Coverage
from ratelimit_service.policy.targets.topology import Gateway, Listener, Parent, Route, Topology

SERVICE = ServiceAddress("tidegate.svc", 8081)
OPEN = Listener("http", 80, same_namespace=False)


POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: %s, namespace: %s}
spec:
  %s
  rules:
  - name: r
    match: [{key: user, type: Any, from: {type: Header, name: x}}]
    limits: [{requests: 1, window: 1s}]
"""


def policy(spec: str, namespace: str = "shop", name: str = "p") -> RateLimitPolicy:
    objects, problems = decode([SourceFile("p.yaml", (POLICY % (name, namespace, spec)).encode())])
    assert len(objects) == 1, problems
    (only,) = objects
    assert isinstance(only, RateLimitPolicy)
    return only


def on(kind: str, target: str, *, section: str = "", namespace: str = "shop", name: str = "p") -> RateLimitPolicy:
    below = f", sectionName: {section}" if section else ""
    return policy(f"targetRefs: [{{kind: {kind}, name: {target}{below}}}]", namespace, name)


def route(
    namespace: str, name: str, *rules: str, kind: TargetKind = TargetKind.HTTP_ROUTE, host: str = "a.com"
) -> Route:
    return Route(kind, namespace, name, (host,), (Parent("shop", "edge"),), rules or ("",))


def rendered(policies: list[RateLimitPolicy], *routes: Route, listeners: tuple[Listener, ...] = (OPEN,)) -> IstioFilter:
    gateway = Gateway("shop", "edge", listeners)
    return render_gateway(gateway, Coverage(policies, Topology((gateway,), routes)), SERVICE)


def patches(made: IstioFilter, kind: str) -> list[dict[str, Any]]:
    manifest: Any = made.manifest
    return [each for each in manifest["spec"]["configPatches"] if each["applyTo"] == kind]


def matched(made: IstioFilter, kind: str = "HTTP_ROUTE") -> list[dict[str, Any]]:
    return [each["match"]["routeConfiguration"] for each in patches(made, kind)]


def test_it_is_for_the_pods_of_the_gateway_and_states_its_priority() -> None:
    """In the Gateway's namespace, under a name that says whose it is."""
    manifest: Any = rendered([on("Gateway", "edge")]).manifest

    assert manifest["metadata"]["name"] == "tidegate-edge"
    assert manifest["metadata"]["namespace"] == "shop"
    assert manifest["spec"]["priority"] == 10
    assert manifest["spec"]["workloadSelector"] == {"labels": {"gateway.networking.k8s.io/gateway-name": "edge"}}


def test_a_route_is_patched_on_its_virtual_host_only() -> None:
    """A rule with a name has that name in Istio, and so may a rule of another tenant; the host tells them apart."""
    made = rendered(
        [on("HTTPRoute", "one"), on("HTTPRoute", "two", name="q", namespace="other")],
        route("shop", "one", "pay"),
        route("other", "two", "pay", host="b.com"),
    )

    assert matched(made) == [
        {"portNumber": 80, "vhost": {"name": "a.com:80", "route": {"name": "pay", "action": "ROUTE"}}},
        {"portNumber": 80, "vhost": {"name": "b.com:80", "route": {"name": "pay", "action": "ROUTE"}}},
    ]
    assert made.ambiguous == ()


def test_a_rule_without_a_name_has_istios() -> None:
    """`<namespace>.<route>.<rule>`."""
    made = rendered([on("HTTPRoute", "one")], route("shop", "one", "", ""))

    assert [each["vhost"]["route"]["name"] for each in matched(made)] == ["shop.one.0", "shop.one.1"]


def test_a_name_that_two_routes_share_on_one_host_is_left_out_and_told() -> None:
    """A patch would reach the other tenant's route."""
    made = rendered([on("HTTPRoute", "one")], route("shop", "one", "pay"), route("other", "two", "pay"))
    ((ambiguous),) = made.ambiguous

    assert matched(made) == []
    assert (ambiguous.host, ambiguous.name) == ("a.com:80", "pay")
    assert made.problems[0].message == (
        "AmbiguousRouteName: HTTPRoute other/two and HTTPRoute shop/one have rules that Istio calls `pay` on "
        "`a.com:80`: give the rules other names"
    )


def test_a_shared_name_is_no_trouble_where_both_get_the_same() -> None:
    """As under a policy of the Gateway alone."""
    made = rendered([on("Gateway", "edge")], route("shop", "one", "pay"), route("other", "two", "pay"))

    assert (len(matched(made)), made.ambiguous) == (1, ())


def test_an_http_route_and_a_grpc_route_of_one_name_are_told_apart_or_told() -> None:
    """Istio names both alike."""
    made = rendered([on("GRPCRoute", "one")], route("shop", "one"), route("shop", "one", kind=TargetKind.GRPC_ROUTE))

    assert made.ambiguous[0].name == "shop.one.0"


def test_listeners_of_one_port_are_told_apart_by_their_hosts() -> None:
    """A policy on one of two listeners reaches the virtual hosts of its routes alone."""
    listeners = (Listener("a", 80, hostname="a.com"), Listener("b", 80, hostname="b.com"))
    routes = (route("shop", "one"), route("shop", "two", host="b.com"))
    made = rendered([on("Gateway", "edge", section="b")], *routes, listeners=listeners)
    alone = rendered([on("Gateway", "edge", section="a")], *routes, listeners=listeners[:1])

    assert matched(made, "VIRTUAL_HOST") == [{"portNumber": 80, "vhost": {"name": "b.com:80"}}]
    assert [each["vhost"]["name"] for each in matched(made)] == ["b.com:80"]
    assert matched(alone, "VIRTUAL_HOST") == [{"portNumber": 80}]


def test_what_is_ours_is_in_a_stage_of_its_own() -> None:
    """Somebody else's filter reads none of it."""
    made = rendered([on("Gateway", "edge")], route("shop", "one"))
    (inserted,) = patches(made, "HTTP_FILTER")
    (host,) = patches(made, "VIRTUAL_HOST")

    assert inserted["patch"]["value"]["typed_config"]["stage"] == 9
    assert [each["stage"] for each in host["patch"]["value"]["rate_limits"]] == [9]


def test_a_workload_has_a_filter_with_its_own_list() -> None:
    """On Istio's gateways, and on sidecars for what comes in."""
    made = render_workload(policy("workloadSelector: {matchLabels: {app: web}}"), SERVICE)
    manifest: Any = made.manifest
    inserted = patches(made, "HTTP_FILTER")

    assert manifest["metadata"]["name"] == "tidegate-p"
    assert manifest["spec"]["workloadSelector"] == {"labels": {"app": "web"}}
    assert [each["match"]["context"] for each in inserted] == ["GATEWAY", "SIDECAR_INBOUND"]
    assert [each["match"]["context"] for each in patches(made, "CLUSTER")] == ["GATEWAY", "SIDECAR_OUTBOUND"]
    assert len(inserted[0]["patch"]["value"]["typed_config"]["rate_limits"]) == 1


def test_a_policy_without_a_live_rule_inserts_no_filter() -> None:
    """A filter without a list would read those of others."""
    off = policy("workloadSelector: {matchLabels: {app: web}}\n  mode: Disabled")

    assert patches(render_workload(off, SERVICE), "HTTP_FILTER") == []


@pytest.mark.parametrize("platform", [False, True])
def test_the_root_namespace_is_for_platforms(platform: bool) -> None:
    """There an EnvoyFilter would reach every namespace."""
    root = policy("workloadSelector: {matchLabels: {app: web}}", namespace="istio-system")
    made = render_workload(root, SERVICE, platform=platform)

    assert bool(made.manifest) is platform
    assert [each.path for each in made.problems] == ([] if platform else ["spec.workloadSelector"])
