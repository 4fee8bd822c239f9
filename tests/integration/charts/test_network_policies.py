"""The chart's NetworkPolicies let through every connection that the parts make, and no other.

What a policy means is computed here; that a network plugin does the same is a scenario of `e2e/cluster`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from support.helm import CHART, find_helm, rendered
from support.network_policies import Peer, may_connect

NAMESPACE = "tidegate-system"
ON = ["--set", "crds.enabled=false,networkPolicy.enabled=true"]
ENVOY = Peer("envoy", "edge", {"app": "envoy"})
PROMETHEUS = Peer("prometheus", "monitoring", {"app": "prometheus"})
STRANGER = Peer("stranger", NAMESPACE, {"app": "stranger"})
OUTSIDE = Peer("outside")
RESOLVER = Peer("resolver", "kube-system", {"k8s-app": "kube-dns"})
API_SERVER = Peer("api server", address="10.0.0.1")
Connection = tuple[str, str, int]

NEEDED: frozenset[Connection] = frozenset(
    {
        ("service", "operator", 18002),
        ("service", "redis", 6379),
        ("service", "resolver", 53),
        ("operator", "api server", 443),
        ("operator", "api server", 6443),
        ("operator", "resolver", 53),
    }
)
"""What the parts open themselves."""

OPEN: frozenset[Connection] = frozenset(
    (each, target, port)
    for each in ("envoy", "prometheus", "stranger", "outside", "resolver", "api server", "test")
    for target, port in (("service", 8081), ("service", 8080), ("operator", 8080))
)
"""What others open to the parts, unless `from` and `metricsFrom` narrow it."""


def _parts(objects: list[dict]) -> list[Peer]:
    """The pods of the chart, with their labels and ports."""
    found = []
    for each in objects:
        if each["kind"] not in ("Deployment", "Pod"):
            continue
        template = each if each["kind"] == "Pod" else each["spec"]["template"]
        labels = template["metadata"]["labels"]
        ports = {
            port["name"]: port["containerPort"]
            for container in template["spec"]["containers"]
            for port in container.get("ports", ())
        }
        # The pod of `helm test` is one that no policy selects.
        found.append(Peer(labels["app.kubernetes.io/component"], NAMESPACE, labels, ports))
    return found


def _policies(objects: list[dict]) -> list[dict]:
    return [each for each in objects if each["kind"] == "NetworkPolicy"]


def _allowed(parts: Sequence[Peer], policies: Sequence[Mapping[str, Any]]) -> frozenset[Connection]:
    """Every connection that is possible and touches a part: to each port that somebody listens on, and some others."""
    others = [ENVOY, PROMETHEUS, STRANGER, OUTSIDE, RESOLVER, API_SERVER]
    ports = {53, 443, 6443, 22, *(port for part in parts for port in part.ports.values())}
    return frozenset(
        (source.name, target.name, port)
        for source, target in itertools.permutations([*parts, *others], 2)
        if source in parts or target in parts
        for port in ports
        if port in target.ports.values() or target in others
        if may_connect(policies, source, target, port)
    )


@pytest.fixture(scope="module")
def objects() -> list[dict]:
    return rendered(find_helm(), CHART, ON)


def _to(names: Sequence[str], allowed: frozenset[Connection]) -> frozenset[Connection]:
    return frozenset(each for each in allowed if each[1] in names)


def test_every_connection_that_the_parts_make_is_allowed(objects: list[dict]) -> None:
    """To the operator, the trial Redis, cluster DNS and the API server."""
    assert _allowed(_parts(objects), _policies(objects)) >= NEEDED | OPEN


def test_nothing_else_reaches_a_part(objects: list[dict]) -> None:
    """Redis and xDS are the service's alone; between parts there is nothing but what they need."""
    allowed = _to(["service", "operator", "redis"], _allowed(_parts(objects), _policies(objects)))
    # One part may ask another one's open ports only if its own policy lets it out; these let nobody out there.
    assert allowed == _to(["service", "operator", "redis"], NEEDED | OPEN)


def test_parts_open_nothing_else_outside(objects: list[dict]) -> None:
    """Beside DNS, the service reaches Redis' port and the operator the API server's ports, wherever these are."""
    allowed = {
        each for each in _allowed(_parts(objects), _policies(objects)) if each[0] in ("service", "operator", "redis")
    }
    assert {(source, port) for source, _, port in allowed} == {
        ("service", 18002),
        ("service", 6379),
        ("service", 53),
        ("operator", 443),
        ("operator", 6443),
        ("operator", 53),
    }


def _without_one_rule(policies: list[dict]) -> Iterator[tuple[str, list[dict]]]:
    """The policies with one rule missing, for each rule of each policy."""
    for number, policy in enumerate(policies):
        for side in ("ingress", "egress"):
            for place in range(len(policy["spec"].get(side) or ())):
                less = copy.deepcopy(policies)
                del less[number]["spec"][side][place]
                yield f"{policy['metadata']['name']} {side} {place}", less


def test_no_rule_is_there_for_nothing(objects: list[dict]) -> None:
    """Without any one of them some connection that is needed is not possible: so the tests above would notice."""
    parts, policies = _parts(objects), _policies(objects)
    useless = [name for name, less in _without_one_rule(policies) if _allowed(parts, less) >= NEEDED | OPEN]
    assert useless == []
    assert len(list(_without_one_rule(policies))) == 10


def test_callers_and_scrapers_can_be_named(objects: list[dict]) -> None:
    """With `from` and `metricsFrom` only they get in; addresses narrow where Redis and the API server are."""
    settings = (
        "networkPolicy.from[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name=edge,"
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name=monitoring,"
        "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus,"
        "networkPolicy.apiServer.cidrs={10.0.0.1/32},"
        "service.tracesEndpoint=http://collector.edge.svc:4317"
    )
    narrowed = rendered(find_helm(), CHART, [*ON, "--set", settings])
    parts, policies = _parts(narrowed), _policies(narrowed)
    allowed = _allowed(parts, policies)

    assert allowed >= NEEDED
    assert _to(["service", "operator", "redis"], allowed - NEEDED) == {
        ("envoy", "service", 8081),
        ("prometheus", "service", 8080),
        ("prometheus", "operator", 8080),
        ("test", "service", 8081),
    }
    assert {each for each in allowed if each[0] == "operator" and each[2] in (443, 6443)} == {
        ("operator", "api server", 443),
        ("operator", "api server", 6443),
    }
    service = next(each for each in parts if each.name == "service")
    assert may_connect(policies, service, ENVOY, 4317)
    assert not may_connect(_policies(objects), service, ENVOY, 4317)
