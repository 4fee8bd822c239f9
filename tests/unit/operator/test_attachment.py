"""What is written so that Envoy asks, and what is said of each target."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_operator.plan.attachment import (
    ENVOY_GATEWAY_CONTROLLER,
    ISTIO_CONTROLLER,
    Attachment,
    AttachSettings,
    Mesh,
    attach,
)
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.model import RateLimitPolicy, TargetKind
from ratelimit_service.policy.render.parts import ServiceAddress
from ratelimit_service.policy.targets.topology import Gateway, Listener, Parent, Requirement, Route, Topology

OPEN = Listener("http", 80, same_namespace=False)
CONTROLLERS = {"istio": ISTIO_CONTROLLER, "eg": ENVOY_GATEWAY_CONTROLLER, "other": "example.com/other"}


def gateway(name: str = "edge", class_name: str = "istio") -> Gateway:
    return Gateway("shop", name, (OPEN,), class_name)


def route(name: str = "api", namespace: str = "shop", rule: str = "", parent: str = "edge") -> Route:
    return Route(TargetKind.HTTP_ROUTE, namespace, name, ("a.com",), (Parent("shop", parent),), (rule,))


def policy(name: str, created: str = "2026-01-01T00:00:00Z", namespace: str = "shop", **spec: Any) -> RateLimitPolicy:
    rules = [
        {
            "name": "r",
            "match": [{"key": "user", "type": "Any", "from": {"type": "Header", "name": name}}],
            "limits": [{"requests": 1, "window": "1s"}],
        }
    ]
    manifest, problems = decode_manifest(
        {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "RateLimitPolicy",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
            "spec": {key: value for key, value in {"rules": rules, **spec}.items() if value is not None},
        }
    )
    assert isinstance(manifest, RateLimitPolicy), problems
    return manifest


def on(*targets: tuple[str, str]) -> dict[str, Any]:
    return {"targetRefs": [{"kind": kind, "name": name} for kind, name in targets]}


EDGE, API = ("Gateway", "edge"), ("HTTPRoute", "api")


def attached(
    *policies: RateLimitPolicy,
    gateways: tuple[Gateway, ...] = (gateway(),),
    routes: tuple[Route, ...] = (route(),),
    istio: bool = True,
    has_envoy_filters: bool = True,
    has_gateway_api: bool = True,
    platforms: frozenset[str] = frozenset(),
) -> Attachment:
    topology = Topology(gateways, routes) if has_gateway_api else None
    mesh = Mesh(topology, CONTROLLERS, {"shop/edge": "gateway-uid"}, has_envoy_filters)
    settings = AttachSettings(istio, ServiceAddress("tidegate.svc", 8081), "release-a")
    return attach(policies, {"shop/p": "policy-uid"}, mesh, settings, platforms)


def reason(found: Attachment, name: str = "shop/p") -> str:
    return found.policies[name].verdict.reason.value


def test_a_gateway_of_istio_gets_a_filter_that_it_owns() -> None:
    """Labelled as this release's, so that it is found and swept."""
    found = attached(policy("p", **on(EDGE)))
    metadata: Any = found.filters["shop/tidegate-edge"]["metadata"]

    assert found.policies["shop/p"].verdict.holds
    assert metadata["labels"]["tidegate.dev/controller"] == "release-a"
    assert metadata["ownerReferences"] == [
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "edge", "uid": "gateway-uid"}
    ]


def test_policies_with_a_domain_have_no_attachment() -> None:
    """Somebody's own Envoy configuration asks for them."""
    found = attached(policy("p", domain="shop.api"))

    assert (found.filters, found.policies) == ({}, {})


@pytest.mark.parametrize(
    ("class_name", "line"),
    [
        ("eg", "tidegate render envoy-gateway --cluster --gateway shop/edge | kubectl apply -f -"),
        ("other", "tidegate render envoy --cluster --gateway shop/edge"),
        ("unknown", "tidegate render envoy --cluster --gateway shop/edge"),
    ],
)
def test_a_class_that_nothing_is_written_for_has_a_line_to_run(class_name: str, line: str) -> None:
    """The exact one."""
    found = attached(policy("p", **on(API)), gateways=(gateway(class_name=class_name),))
    verdict = found.policies["shop/p"].verdict

    assert reason(found) == "NoIntegration"
    assert verdict.message.endswith(line)
    assert found.filters == {}


@pytest.mark.parametrize("switch", ["istio", "has_envoy_filters"])
def test_without_istio_its_line_is_named_and_nothing_is_written(switch: str) -> None:
    """Off is the default; and a cluster may have the Gateway API and no Istio."""
    found = attached(policy("p", **on(EDGE)), **{switch: False})  # type: ignore[arg-type]

    assert reason(found) == "NoIntegration"
    assert (
        "run: tidegate render istio --cluster --gateway shop/edge | kubectl apply -f -"
        in found.policies["shop/p"].verdict.message
    )
    assert found.filters == {}


@pytest.mark.parametrize(
    ("spec", "options", "expected"),
    [
        (on(("Gateway", "gone")), {}, "TargetNotFound"),
        (on(API), {"routes": (route(parent="gone"),)}, "TargetNotFound"),
        (on(EDGE), {"has_gateway_api": False}, "TargetNotFound"),
        ({"targetRefs": [{"group": "x.io", "kind": "Gateway", "name": "edge"}]}, {}, "UnsupportedTarget"),
        (on(API), {"routes": (route(rule="pay"), route("other", "tenant", "pay"))}, "AmbiguousRouteName"),
    ],
)
def test_a_target_that_cannot_be_attached_to_says_why(
    spec: dict[str, Any], options: dict[str, Any], expected: str
) -> None:
    """In the policy's condition and the target's."""
    found = attached(policy("p", **spec), **options)

    assert reason(found) == expected
    assert [each.reason.value for each in found.policies["shop/p"].targets] == [expected]


def test_of_two_policies_on_one_target_the_older_is_attached() -> None:
    """The other is told by which; when the older goes, it takes its place."""
    old = policy("old", "2026-01-01T00:00:00Z", **on(EDGE))
    new = policy("new", "2026-02-01T00:00:00Z", **on(EDGE))
    both, alone = attached(new, old), attached(new)

    assert reason(both, "shop/new") == "Conflicted"
    assert both.policies["shop/new"].verdict.message == "Gateway shop/edge has the older policy shop/old"
    assert both.policies["shop/old"].verdict.holds
    assert alone.policies["shop/new"].verdict.holds


def test_what_envoy_cannot_do_per_route_is_told_where_the_policy_is_attached() -> None:
    """`failure.onServiceError` is one setting per filter; the policy on the Gateway has it, and is told nothing."""
    deny: dict[str, Any] = {"failure": {"onServiceError": "Deny"}}
    alone = attached(policy("p", **on(API), **deny))
    with_gateways = attached(policy("p", **on(API), **deny), policy("edge", **on(EDGE), **deny))
    verdict = alone.policies["shop/p"].verdict

    assert verdict.holds
    assert "; failure.onServiceError is ignored on Gateway shop/edge" in verdict.message
    assert [each.verdict.message for each in with_gateways.policies.values()] == ["Envoy asks for every target"] * 2


def test_an_overridden_rule_that_is_reached_all_the_same_is_told() -> None:
    """Its sibling takes its values from the same place, so Envoy sends one descriptor for both."""
    plan = {"key": "plan", "from": {"type": "Header", "name": "x-plan"}}
    limits = [{"requests": 1, "window": "1s"}]
    gold, every = (
        {"name": "gold", "match": [{**plan, "value": "gold"}]},
        {"name": "r", "match": [{**plan, "type": "Any"}]},
    )
    overrides = {"rules": [{"name": "gold", "match": [{**plan, "key": "other", "type": "Any"}], "limits": limits}]}
    found = attached(
        policy("p", **on(API), rules=[{**gold, "limits": limits}, {**every, "limits": limits}]),
        policy("edge", **on(EDGE), rules=None, overrides=overrides),
    )

    assert "; rule gold is overridden and reached all the same: r shares its values" in (
        found.policies["shop/p"].verdict.message
    )


def test_a_route_whose_namespace_a_listener_does_not_admit_is_on_no_gateway() -> None:
    """Nor can it make another route's name ambiguous."""
    chosen = Listener("http", 80, same_namespace=False, selector=(Requirement("team", "In", ("web",)),))
    edge = Gateway("shop", "edge", (chosen,), "istio")
    mine, foreign = route(rule="pay"), route("other", "tenant", "pay")
    namespaces = {"shop": {"team": "web"}, "tenant": {"team": "other"}}
    mesh = Mesh(Topology((edge,), (mine, foreign), namespaces), CONTROLLERS, {}, has_envoy_filters=True)
    settings = AttachSettings(True, ServiceAddress("tidegate.svc", 8081), "release-a")
    found = attach(
        [policy("p", **on(API)), policy("f", namespace="tenant", **on(("HTTPRoute", "other")))], {}, mesh, settings,
        frozenset(),
    )  # fmt: skip

    assert found.policies["shop/p"].verdict.holds
    assert reason(found, "tenant/f") == "TargetNotFound"


def test_each_target_is_judged_alone() -> None:
    """The worst of them is the policy's."""
    found = attached(policy("p", **on(EDGE, ("Gateway", "gone"))))

    assert [each.holds for each in found.policies["shop/p"].targets] == [True, False]
    assert reason(found) == "TargetNotFound"


def test_a_policy_that_selects_workloads_owns_its_filter() -> None:
    """In its own namespace."""
    found = attached(policy("p", workloadSelector={"matchLabels": {"app": "web"}}))
    metadata: Any = found.filters["shop/tidegate-p"]["metadata"]

    assert found.policies["shop/p"].verdict.holds
    assert metadata["ownerReferences"][0]["uid"] == "policy-uid"


@pytest.mark.parametrize("switch", ["istio", "has_envoy_filters"])
def test_selected_workloads_need_istio(switch: str) -> None:
    """The line to run is named."""
    found = attached(
        policy("p", workloadSelector={"matchLabels": {"app": "web"}}),
        **{switch: False},  # type: ignore[arg-type]
    )

    assert reason(found) == "NoIntegration"
    assert found.policies["shop/p"].verdict.message.endswith(
        "run: tidegate render istio --cluster | kubectl apply -f -"
    )


@pytest.mark.parametrize("platform", [False, True])
def test_the_root_namespace_is_for_platforms(platform: bool) -> None:
    """There an EnvoyFilter would reach every namespace."""
    root = policy("p", namespace="istio-system", workloadSelector={"matchLabels": {"app": "web"}})
    found = attached(root, platforms=frozenset({"istio-system"} if platform else ()))

    assert found.policies["istio-system/p"].verdict.holds is platform
    assert bool(found.filters) is platform
