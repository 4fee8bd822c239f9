"""Gateways, listeners and the routes on them."""

from __future__ import annotations

import pytest

from ratelimit_service.policy.model import TargetKind
from ratelimit_service.policy.targets.reading import read_topology
from ratelimit_service.policy.targets.topology import (
    Gateway,
    Listener,
    Parent,
    Route,
    Topology,
    meeting_hostnames,
    narrower,
    points,
)


@pytest.mark.parametrize(
    ("first", "second", "met"),
    [
        ("*", "*", "*"),
        ("*", "a.com", "a.com"),
        ("a.com", "a.com", "a.com"),
        ("*.a.com", "b.a.com", "b.a.com"),
        ("*.a.com", "c.b.a.com", "c.b.a.com"),
        ("*.a.com", "*.b.a.com", "*.b.a.com"),
        ("*.a.com", "a.com", ""),
        ("*.a.com", "ba.com", ""),
        ("a.com", "b.com", ""),
    ],
)
def test_hostnames_meet_in_the_narrower_one(first: str, second: str, met: str) -> None:
    """In either order."""
    assert narrower(first, second) == met
    assert narrower(second, first) == met


HTTP = Listener(name="http", port=80)


def gateway(*listeners: Listener) -> Gateway:
    return Gateway("infra", "edge", listeners or (HTTP,))


def route(*parents: Parent, namespace: str = "infra", hostnames: tuple[str, ...] = ()) -> Route:
    return Route(TargetKind.HTTP_ROUTE, namespace, "api", hostnames, parents or (Parent("infra", "edge"),))


@pytest.mark.parametrize(
    ("parent", "attached"),
    [
        (Parent("infra", "edge"), True),
        (Parent("infra", "edge", "http"), True),
        (Parent("infra", "edge", "https"), False),
        (Parent("infra", "edge", port=80), True),
        (Parent("infra", "edge", port=443), False),
        (Parent("infra", "other"), False),
        (Parent("shop", "edge"), False),
    ],
)
def test_a_route_is_on_the_listeners_that_its_parents_name(parent: Parent, attached: bool) -> None:
    """By Gateway, section and port."""
    assert bool(meeting_hostnames(gateway(), HTTP, route(parent))) is attached


def test_a_route_of_another_namespace_needs_the_listeners_leave() -> None:
    """Same is the default of `allowedRoutes`."""
    foreign = route(namespace="shop")
    shared = Listener(name="http", port=80, same_namespace=False)

    assert meeting_hostnames(gateway(), HTTP, foreign) == ()
    assert meeting_hostnames(gateway(shared), shared, foreign) == ("*",)


@pytest.mark.parametrize(
    ("selector", "labels", "admitted"),
    [
        ({"matchLabels": {"team": "web"}}, {"team": "web", "more": "x"}, True),
        ({"matchLabels": {"team": "web"}}, {"team": "api"}, False),
        ({"matchLabels": {"team": "web"}}, {}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["web", "api"]}]}, {"team": "api"}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["web"]}]}, {"team": "web"}, False),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["web"]}]}, {}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, {"team": ""}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, {"team": "web"}, False),
        ({"matchExpressions": [{"key": "team", "operator": "Newer", "values": ["web"]}]}, {"team": "web"}, False),
        ({"matchLabels": {"team": "web"}, "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]},
         {"team": "web", "old": ""}, False),
        ({}, {}, True),
    ],
)  # fmt: skip
def test_a_listener_chooses_namespaces_by_their_labels(
    selector: dict[str, object], labels: dict[str, str], admitted: bool
) -> None:
    """As a label selector does; a namespace that nobody has seen is left to the Gateway's controller."""
    allowed = {"namespaces": {"from": "Selector", "selector": selector}}
    objects = [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": "infra"},
            "spec": {"listeners": [{"name": "http", "port": 80, "allowedRoutes": allowed}]},
        },
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}},
    ]
    topology = read_topology(objects)
    (edge,) = topology.gateways
    (listener,) = edge.listeners

    assert bool(topology.hostnames(edge, listener, route(namespace="shop"))) is admitted
    assert topology.hostnames(edge, listener, route(namespace="unseen")) == ("*",)


def test_labels_count_only_where_a_listener_asks_for_them() -> None:
    """A selector beside `from: All` is ignored, as the API says."""
    allowed = {"namespaces": {"from": "All", "selector": {"matchLabels": {"team": "web"}}}}
    listeners = [{"name": "http", "port": 80, "allowedRoutes": allowed}]
    found = read_topology([{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                            "metadata": {"name": "edge"}, "spec": {"listeners": listeners}}])  # fmt: skip

    assert found.gateways[0].listeners[0].selector == ()


def test_points_are_each_listener_and_each_rule_of_each_route_on_it() -> None:
    """A route that meets no hostname of a listener is not on it."""
    a, b = Listener("a", 80, hostname="a.com"), Listener("b", 80, hostname="*.b.com")
    two_rules = Route(
        TargetKind.HTTP_ROUTE, "infra", "api", ("x.b.com", "c.com"), (Parent("infra", "edge"),), ("one", "")
    )
    found = [
        (point.listener.name, point.route is not None, point.rule, point.hostnames)
        for point in points(Topology(routes=(two_rules,)), gateway(a, b))
    ]

    assert found == [
        ("a", False, 0, ("a.com",)),
        ("b", False, 0, ("*.b.com",)),
        ("b", True, 0, ("x.b.com",)),
        ("b", True, 1, ("x.b.com",)),
    ]


def test_objects_are_read_as_the_api_server_gives_them() -> None:
    """Other kinds and groups are passed over."""
    group = "gateway.networking.k8s.io/v1"
    found = read_topology(
        [
            {
                "apiVersion": group,
                "kind": "Gateway",
                "metadata": {"name": "edge", "namespace": "infra", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {
                    "gatewayClassName": "istio",
                    "listeners": [
                        {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "a.com"},
                        {"name": "x", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}},
                    ],
                },
            },
            {
                "apiVersion": group,
                "kind": "GRPCRoute",
                "metadata": {"name": "calls"},
                "spec": {
                    "parentRefs": [
                        {"name": "edge", "namespace": "infra", "sectionName": "https", "port": 443},
                        {"name": "svc", "kind": "Service", "group": ""},
                        {"name": "odd", "group": "example.com"},
                    ],
                    "hostnames": ["a.com"],
                    "rules": [{"name": "one"}, {}],
                },
            },
            {"apiVersion": group, "kind": "HTTPRoute", "metadata": {"name": "empty"}},
            {"apiVersion": "v1", "kind": "Gateway", "metadata": {"name": "foreign"}},
            {"apiVersion": group, "kind": "TLSRoute", "metadata": {"name": "foreign"}},
        ]
    )
    (edge,) = found.gateways
    calls, empty = found.routes

    assert edge.listeners == (
        Listener("https", 443, "HTTPS", "a.com"),
        Listener("x", 80, "HTTP", "*", same_namespace=False),
    )
    assert (edge.class_name, edge.created, str(edge)) == ("istio", "2026-01-01T00:00:00Z", "Gateway infra/edge")
    assert calls.parents == (Parent("infra", "edge", "https", 443),)
    assert (calls.rules, calls.hostnames, str(calls)) == (("one", ""), ("a.com",), "GRPCRoute default/calls")
    assert (empty.rules, empty.parents) == (("",), ())
