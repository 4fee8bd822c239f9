"""Istio: what is rendered goes through istiod's own translation and into a real Envoy. Not a whole Istio."""

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
from e2e.support.translators import Resources, dump, istio, runnable
from ratelimit_service.cli.render import render
from support.certificates import Authority

pytestmark = pytest.mark.translators("istio")

Object = dict[str, Any]
SHOP = "shop.example.com"
ANN, BOB = {"x-user": "ann", "host": SHOP}, {"x-user": "bob", "host": SHOP}


def loaded(text: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(text) if each]


SERVICES = loaded("""
apiVersion: v1
kind: Service
metadata: {name: up, namespace: shop}
spec: {clusterIP: 10.0.0.7, ports: [{name: http, port: 3000, targetPort: 3000, protocol: TCP}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge-istio, namespace: shop}
spec:
  clusterIP: 10.0.0.8
  selector: {gateway.networking.k8s.io/gateway-name: edge}
  ports: [{name: http, port: 80, targetPort: 80, protocol: TCP}]
""")

GATEWAY_API = loaded("""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: "*.example.com"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules:
  - {matches: [{path: {type: PathPrefix, value: /api}}], backendRefs: [{name: up, port: 3000}]}
  - {name: pay, matches: [{path: {type: PathPrefix, value: /pay}}], backendRefs: [{name: up, port: 3000}]}
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com}}]
""")

CLASSIC = loaded("""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: shop}
spec:
  hosts: [shop.example.com]
  gateways: [gw]
  http: [{name: main, route: [{destination: {host: up.shop.svc.cluster.local, port: {number: 3000}}}]}]
""")

LABELS = {"gateway.networking.k8s.io/gateway-name": "edge"}
CLASSIC_LABELS = {"istio": "ingressgateway"}


def policy(name: str, spec: Mapping[str, Any], rule: str, match: Sequence[Mapping[str, Any]], requests: int) -> Object:
    """A policy of one rule."""
    rules = [{"name": rule, "match": list(match), "limits": [{"requests": requests, "window": "1h"}]}]
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {**spec, "rules": rules},
    }


EVERYONE = [{"key": "area", "value": "edge", "from": {"type": "Static"}}]
USER = [{"key": "user", "type": "Any", "from": {"type": "Header", "name": "x-user"}}]
ON_GATEWAY = policy("edge", {"targetRefs": [{"kind": "Gateway", "name": "edge"}]}, "all", EVERYONE, 3)
ON_ROUTE = policy("api", {"targetRefs": [{"kind": "HTTPRoute", "name": "api"}]}, "per-user", USER, 2)
ON_RULE = policy("pay", {"targetRefs": [{"kind": "HTTPRoute", "name": "api", "sectionName": "pay"}]}, "pay", USER, 1)


def rendered(folder: Path, objects: Sequence[Object], port: int, *more: str) -> list[Object]:
    """`tidegate render istio`."""
    file = dump(folder / "manifests.yaml", objects)
    words = ["istio", str(file), "--service", f"127.0.0.1:{port}", *more]
    done = CliRunner().invoke(render, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return loaded(done.stdout)


@contextmanager
def standing(folder: Path, policies: list[Object], upstream_port: int) -> Iterator[tuple[Envoy, Resources]]:
    """A Gateway of the Gateway API under Istio's translation, with what is rendered for the policies."""
    with service(folder, policies, "native") as asked:
        filters = rendered(folder, [*GATEWAY_API, *policies], asked.grpc_port)
        objects = [*SERVICES, *GATEWAY_API]
        found = istio(folder, config=filters, objects=objects, namespace="shop", labels=LABELS, routes=3)
        with envoy(folder, runnable(found, "0.0.0.0_80", upstream_port)) as asking:
            yield asking, found


def statuses(asking: Envoy, path: str, headers: Mapping[str, str], count: int) -> list[int]:
    return [get(asking.address, path, headers).status for _ in range(count)]


def test_a_policy_on_the_gateway_limits_every_route(tmp_path: Path, upstream_port: int) -> None:
    """Three requests on any route; the redirect is answered by Envoy itself and never asked for."""
    with standing(tmp_path, [ON_GATEWAY], upstream_port) as (asking, _):
        assert statuses(asking, "/api", ANN, 2) == [200, 200]
        assert statuses(asking, "/pay", BOB, 2) == [200, 429]
        assert statuses(asking, "/old", BOB, 2) == [301, 301]
        assert asking.stat("ratelimit.error") == 0


def test_a_policy_on_a_route_limits_that_route(tmp_path: Path, upstream_port: int) -> None:
    """Each user twice; a rule's own policy comes on top for that rule."""
    with standing(tmp_path, [ON_ROUTE, ON_RULE], upstream_port) as (asking, _):
        assert statuses(asking, "/api", ANN, 3) == [200, 200, 429]
        assert statuses(asking, "/pay", BOB, 2) == [200, 429]
        assert statuses(asking, "/api", BOB, 2) == [200, 429]
        assert asking.stat("ratelimit.error") == 0


def test_both_levels_count_together(tmp_path: Path, upstream_port: int) -> None:
    """Ann has two; the whole Gateway three."""
    with standing(tmp_path, [ON_GATEWAY, ON_ROUTE], upstream_port) as (asking, _):
        assert statuses(asking, "/api", ANN, 3) == [200, 200, 429]
        assert statuses(asking, "/api", BOB, 2) == [200, 429]


def test_local_limits_stand_before_the_global_ones(tmp_path: Path, upstream_port: int) -> None:
    """What Envoy refuses by itself is not asked for: of ann's three requests the Gateway's four count two."""
    on_route = policy("api", {"targetRefs": [{"kind": "HTTPRoute", "name": "api"}]}, "per-user", USER, 9)
    on_route["spec"]["rules"][0]["local"] = {"requests": 2, "window": "1h"}
    on_gateway = policy("edge", {"targetRefs": [{"kind": "Gateway", "name": "edge"}]}, "all", EVERYONE, 4)
    with standing(tmp_path, [on_gateway, on_route], upstream_port) as (asking, _):
        assert statuses(asking, "/api", ANN, 3) == [200, 200, 429]
        assert statuses(asking, "/pay", BOB, 2) == [200, 200]
        assert statuses(asking, "/pay", {**BOB, "x-user": "cy"}, 1) == [429]


def test_a_classic_gateway_is_limited_by_policies_that_select_it(tmp_path: Path, upstream_port: int) -> None:
    """Two policies on one workload: each asks by a filter of its own, so what one denies the other has counted."""
    selector = {"workloadSelector": {"matchLabels": CLASSIC_LABELS}}
    policies = [policy("one", selector, "all", EVERYONE, 4), policy("two", selector, "per-user", USER, 2)]
    with service(tmp_path, policies, "native") as asked:
        filters = rendered(tmp_path, policies, asked.grpc_port)
        config = [*CLASSIC, *filters]
        found = istio(tmp_path, config=config, objects=SERVICES, namespace="shop", labels=CLASSIC_LABELS, routes=1)
        with envoy(tmp_path, runnable(found, "0.0.0.0_80", upstream_port)) as asking:
            assert statuses(asking, "/", ANN, 3) == [200, 200, 429]
            assert statuses(asking, "/", BOB, 2) == [200, 429]
            assert asking.stat("ratelimit.error") == 0


def test_without_our_filters_everything_passes(tmp_path: Path, upstream_port: int) -> None:
    """What detaching leaves behind: Istio's configuration as it was, and no word of ours in it."""
    objects = [*SERVICES, *GATEWAY_API]
    found = istio(tmp_path, config=[], objects=objects, namespace="shop", labels=LABELS, routes=3)
    with envoy(tmp_path, runnable(found, "0.0.0.0_80", upstream_port)) as asking:
        assert statuses(asking, "/api", ANN, 5) == [200] * 5
    assert "tidegate" not in str(found)


def test_a_policy_on_a_grpc_route_limits_its_calls(tmp_path: Path, upstream_port: int) -> None:
    """RESOURCE_EXHAUSTED (8) for the third; other calls and an HTTPRoute beside it go on."""
    orders = loaded("""
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
    target = {"kind": "GRPCRoute", "name": "orders", "sectionName": "place"}
    policies = [policy("orders", {"targetRefs": [target]}, "per-user", USER, 2)]
    call = {"x-user": "ann", "host": "grpc.example.com", "content-type": "application/grpc", "content-length": "0"}
    with service(tmp_path, policies, "native") as asked:
        manifests = [*GATEWAY_API, *orders]
        filters = rendered(tmp_path, [*manifests, *policies], asked.grpc_port)
        objects = [*SERVICES, *manifests]
        found = istio(tmp_path, config=filters, objects=objects, namespace="shop", labels=LABELS, routes=5)
        with envoy(tmp_path, runnable(found, "0.0.0.0_80", upstream_port)) as asking:
            placed = [get(asking.address, "/shop.Orders/Place", call, method="POST") for _ in range(3)]
            listed = [get(asking.address, "/shop.Orders/List", call, method="POST") for _ in range(3)]
            assert [each.headers.get("grpc-status") for each in placed] == [None, None, "8"]
            assert [each.headers.get("grpc-status") for each in listed] == [None] * 3
            assert statuses(asking, "/api", ANN, 3) == [200] * 3


def test_a_listener_with_tls_is_limited(tmp_path: Path, upstream_port: int) -> None:
    """Istio calls its route table otherwise; what is rendered finds it. Its TLS itself is left out here."""
    cert, key = Authority(tmp_path).issue("edge", dns="shop.example.com")
    gateway, route = [dict(each) for each in GATEWAY_API if each["kind"] in ("Gateway", "HTTPRoute")]
    listener = {
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com",
        "tls": {"mode": "Terminate", "certificateRefs": [{"name": "edge-tls"}]},
    }  # fmt: skip
    gateway["spec"] = {**gateway["spec"], "listeners": [listener]}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "edge-tls", "namespace": "shop"},
        "data": {
            "tls.crt": base64.b64encode(cert.read_bytes()).decode(),
            "tls.key": base64.b64encode(key.read_bytes()).decode(),
        },
    }
    edge = [dict(each) for each in SERVICES]
    edge[1]["spec"] = {**edge[1]["spec"], "ports": [{"name": "https", "port": 443, "targetPort": 443}]}
    policies = [ON_GATEWAY, ON_ROUTE]
    with service(tmp_path, policies, "native") as asked:
        manifests = [GATEWAY_API[0], gateway, route]
        filters = rendered(tmp_path, [*manifests, *policies], asked.grpc_port)
        objects = [*edge, secret, *manifests]
        found = istio(tmp_path, config=filters, objects=objects, namespace="shop", labels=LABELS, routes=3)
        with envoy(tmp_path, runnable(found, "0.0.0.0_443", upstream_port)) as asking:
            assert statuses(asking, "/api", ANN, 3) == [200, 200, 429]
            assert statuses(asking, "/api", BOB, 2) == [200, 429]


def test_tls_to_the_service_comes_through(tmp_path: Path, upstream_port: int) -> None:
    """The cluster is Envoy's as it was rendered: Istio adds no TLS of its own to it."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("service")
    with service(tmp_path, [ON_ROUTE], "native", ["--grpc-tls-cert", str(cert), "--grpc-tls-key", str(key)]) as asked:
        manifests = [*GATEWAY_API, ON_ROUTE]
        filters = rendered(tmp_path, manifests, asked.grpc_port, "--service-ca", str(authority.ca_path))
        objects = [*SERVICES, *GATEWAY_API]
        found = istio(tmp_path, config=filters, objects=objects, namespace="shop", labels=LABELS, routes=3)
        with envoy(tmp_path, runnable(found, "0.0.0.0_80", upstream_port)) as asking:
            assert statuses(asking, "/api", ANN, 3) == [200, 200, 429]
            assert asking.stat("ratelimit.error") == 0


def test_a_sidecar_limits_what_comes_in(tmp_path: Path, upstream_port: int) -> None:
    """A policy that selects the workload; nothing is asked for what goes out."""
    workload = loaded("""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: shop}
spec:
  hosts: [web.shop.svc.cluster.local]
  addresses: [10.0.0.9]
  ports: [{number: 3000, name: http, protocol: HTTP}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints: [{address: 10.10.0.1, labels: {app: web}}]
""")
    policies = [policy("web", {"workloadSelector": {"matchLabels": {"app": "web"}}}, "per-user", USER, 2)]
    with service(tmp_path, policies, "native") as asked:
        config = [*workload, *rendered(tmp_path, policies, asked.grpc_port)]
        found = istio(
            tmp_path, config=config, objects=SERVICES, namespace="shop", labels={"app": "web"}, routes=1,
            sidecar="10.10.0.1",
        )  # fmt: skip
        inbound = runnable(found, "virtualInbound", upstream_port, chain_port=3000)
        with envoy(tmp_path, inbound) as asking:
            assert statuses(asking, "/", ANN, 3) == [200, 200, 429]
            assert statuses(asking, "/", BOB, 1) == [200]
            assert asking.stat("ratelimit.error") == 0
    outbound = [each for each in found["listeners"] if each["name"] != "virtualInbound"]
    assert outbound
    assert "filters.http.ratelimit" not in str(outbound)
