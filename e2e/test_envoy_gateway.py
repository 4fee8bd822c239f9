"""Envoy Gateway: EnvoyPatchPolicies go through its own translator, in both schemes of names, into a real Envoy."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from e2e.support.caller import get
from e2e.support.envoy import Envoy, envoy
from e2e.support.service import service
from e2e.support.translators import dump, envoy_gateway, runnable
from ratelimit_service.cli.render import render
from support.certificates import Authority

pytestmark = pytest.mark.translators("envoy-gateway")

Object = dict[str, Any]
SCHEMES = {"listener": "shop/edge/http", "port": "tcp-8080"}
"""Scheme of names → name of the listener in it."""

CLUSTER = [each for each in yaml.safe_load_all("""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: eg}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: eg
  listeners:
  - {name: http, port: 8080, protocol: HTTP, hostname: "*.example.com"}
  - {name: inner, port: 8080, protocol: HTTP, hostname: "*.example.org"}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com, shop.example.org]
  rules:
  - {matches: [{path: {type: PathPrefix, value: /api}}], backendRefs: [{name: up, port: 3000}]}
  - {name: pay, matches: [{path: {type: PathPrefix, value: /pay}}], backendRefs: [{name: up, port: 3000}]}
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: up, namespace: shop}
spec: {clusterIP: 7.7.7.7, ports: [{name: http, port: 3000, targetPort: 3000, protocol: TCP}]}
""") if each]  # fmt: skip

COM, ORG = "shop.example.com", "shop.example.org"
EVERYONE = [{"key": "area", "value": "edge", "from": {"type": "Static"}}]
USER = [{"key": "user", "type": "Any", "from": {"type": "Header", "name": "x-user"}}]


def policy(name: str, target: Mapping[str, str], match: Sequence[Mapping[str, Any]], requests: int) -> Object:
    """A policy of one rule on one target."""
    rules = [{"name": name, "match": list(match), "limits": [{"requests": requests, "window": "1h"}]}]
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRefs": [dict(target)], "rules": rules},
    }


MORE = [
    each
    for each in yaml.safe_load_all("""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: eg
  listeners:
  - name: https
    port: 8443
    protocol: HTTPS
    hostname: "*.example.com"
    tls: {mode: Terminate, certificateRefs: [{name: edge-tls}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: orders, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [grpc.example.com]
  rules:
  - {name: place, matches: [{method: {service: shop.Orders, method: Place}}], backendRefs: [{name: up, port: 3000}]}
  - {matches: [{method: {service: shop.Orders}}], backendRefs: [{name: up, port: 3000}]}
""")
    if each
]
"""A listener with TLS, and a route of gRPC calls on it."""

ON_GATEWAY = policy("edge", {"kind": "Gateway", "name": "edge"}, EVERYONE, 3)
ON_INNER = policy("inner", {"kind": "Gateway", "name": "edge", "sectionName": "inner"}, EVERYONE, 1)
ON_ROUTE = policy("api", {"kind": "HTTPRoute", "name": "api"}, USER, 2)
ON_CALLS = policy("orders", {"kind": "GRPCRoute", "name": "orders", "sectionName": "place"}, USER, 2)
ON_RULE = policy("pay", {"kind": "HTTPRoute", "name": "api", "sectionName": "pay"}, USER, 1)


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    """Each scheme of names that this version has."""
    return str(request.param)


@contextmanager
def standing(
    folder: Path,
    policies: list[Object],
    scheme: str,
    upstream_port: int,
    *,
    cluster: Sequence[Object] = CLUSTER,
    listener: str = "",
) -> Iterator[Envoy]:
    """The Gateway under Envoy Gateway's translation, with what is rendered for the policies."""
    with service(folder, policies, "native") as asked:
        file = dump(folder / "manifests.yaml", [*cluster, *policies])
        arguments = ["envoy-gateway", str(file), "--names", scheme, "--service", f"127.0.0.1:{asked.grpc_port}"]
        done = CliRunner().invoke(render, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found = envoy_gateway(folder, [*cluster, *yaml.safe_load_all(done.stdout)], second_scheme=scheme == "port")
        with envoy(folder, runnable(found, listener or SCHEMES[scheme], upstream_port)) as asking:
            yield asking
            assert asking.stat("ratelimit.error") == 0


def statuses(asking: Envoy, path: str, user: str, count: int, host: str = COM) -> list[int]:
    return [get(asking.address, path, {"x-user": user, "host": host}).status for _ in range(count)]


def test_a_policy_on_the_gateway_limits_every_route(scheme: str, tmp_path: Path, upstream_port: int) -> None:
    """Three requests on any route and host; the redirect is answered by Envoy itself and never asked for."""
    with standing(tmp_path, [ON_GATEWAY], scheme, upstream_port) as asking:
        assert statuses(asking, "/api", "ann", 2) == [200, 200]
        assert statuses(asking, "/old", "ann", 3) == [302, 302, 302]
        assert statuses(asking, "/pay", "bob", 2, ORG) == [200, 429]


def test_policies_on_a_route_and_its_rule_limit_them(scheme: str, tmp_path: Path, upstream_port: int) -> None:
    """Each user twice, and once on the rule."""
    with standing(tmp_path, [ON_ROUTE, ON_RULE], scheme, upstream_port) as asking:
        assert statuses(asking, "/api", "ann", 3) == [200, 200, 429]
        assert statuses(asking, "/pay", "bob", 2) == [200, 429]


def test_levels_count_together(scheme: str, tmp_path: Path, upstream_port: int) -> None:
    """Gateway, one of two listeners on a port, and the route."""
    with standing(tmp_path, [ON_GATEWAY, ON_INNER, ON_ROUTE], scheme, upstream_port) as asking:
        assert statuses(asking, "/api", "ann", 3) == [200, 200, 429]
        assert statuses(asking, "/api", "bob", 2) == [200, 429]
    with standing(tmp_path, [ON_INNER], scheme, upstream_port) as asking:
        assert statuses(asking, "/api", "ann", 3) == [200, 200, 200]
        assert statuses(asking, "/api", "ann", 2, ORG) == [200, 429]


def test_calls_on_a_listener_with_tls_are_limited(scheme: str, tmp_path: Path, upstream_port: int) -> None:
    """A GRPCRoute's rule under a policy of its own, and an HTTPRoute beside it under the Gateway's.

    The route table has another name than without TLS; the TLS itself is left out here.
    """
    cert, key = (base64.b64encode(path.read_bytes()).decode() for path in Authority(tmp_path).issue("edge"))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "edge-tls", "namespace": "shop"},
        "data": {"tls.crt": cert, "tls.key": key},
    }
    cluster = [*(each for each in CLUSTER if each["kind"] != "Gateway"), secret, *MORE]
    listener = "shop/edge/https" if scheme == "listener" else "tcp-8443"
    call = {"x-user": "ann", "host": "grpc.example.com", "content-type": "application/grpc", "content-length": "0"}
    policies = [ON_CALLS, policy("edge", {"kind": "Gateway", "name": "edge"}, EVERYONE, 6)]
    with standing(tmp_path, policies, scheme, upstream_port, cluster=cluster, listener=listener) as asking:
        placed = [get(asking.address, "/shop.Orders/Place", call, method="POST") for _ in range(3)]
        listed = [get(asking.address, "/shop.Orders/List", call, method="POST") for _ in range(2)]
        assert [each.headers.get("grpc-status") for each in placed] == [None, None, "8"]
        assert [each.headers.get("grpc-status") for each in listed] == [None, None]
        assert statuses(asking, "/api", "ann", 3) == [200, 200, 429]
