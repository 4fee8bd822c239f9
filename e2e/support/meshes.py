"""Gateway API and Istio kinds on a real API server: definitions, objects of them, and what is said of policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from e2e.support.kube import Kube, condition
from e2e.support.processes import eventually

Manifest = dict[str, Any]
FOREIGN = Path(__file__).parent.parent / "api" / "foreign"
FILTERS = "/apis/networking.istio.io/v1alpha3/envoyfilters"
GATEWAY_KINDS = ("gateway.*.yaml", "/apis/gateway.networking.k8s.io/v1/gateways")
ISTIO_KINDS = ("networking.*.yaml", FILTERS)
ISTIO, ENVOY_GATEWAY = "istio.io/gateway-controller", "gateway.envoyproxy.io/gatewayclass-controller"


def definitions(pattern: str) -> list[Manifest]:
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOREIGN.glob(pattern))]


def install_kinds(kube: Kube, pattern: str, url: str) -> None:
    for manifest in definitions(pattern):
        assert kube.apply(manifest).code in (200, 201)
        spec = manifest["spec"]
        served = [
            f"/apis/{spec['group']}/{each['name']}/{spec['names']['plural']}"
            for each in spec["versions"]
            if each["served"]
        ]
        for place in served:
            eventually("the kind to be served", lambda place=place: kube.get(place).code == 200, 60)  # type: ignore[misc]
    eventually("the kinds to be served", lambda: kube.get(url).code == 200, 60)


def gateway_class(name: str, controller: str) -> Manifest:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller},
    }


def gateway(name: str, class_name: str = "istio", namespace: str = "shop") -> Manifest:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "gatewayClassName": class_name,
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    }


def route(name: str, parent: str = "edge", namespace: str = "shop") -> Manifest:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": parent}],
            "hostnames": ["shop.example.com"],
            "rules": [{"name": "pay", "backendRefs": [{"name": "up", "port": 80}]}],
        },
    }


def policy(name: str, *targets: Mapping[str, str], header: str = "x-user") -> Manifest:
    match = [{"key": "user", "type": "Any", "from": {"type": "Header", "name": header}}]
    rules = [{"name": "per-user", "match": match, "limits": [{"requests": 5, "window": "1h"}]}]
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRefs": [dict(each) for each in targets], "rules": rules},
    }


def rule(name: str, header: str = "x-user", requests: int = 5) -> Manifest:
    """A rule per value of a header."""
    match = [{"key": name, "type": "Any", "from": {"type": "Header", "name": header}}]
    return {"name": name, "match": match, "limits": [{"requests": requests, "window": "1h"}]}


def with_spec(name: str, namespace: str, **spec: Any) -> Manifest:
    """A policy."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def said(kube: Kube, manifest: Manifest, type_: str = "Attached") -> str:
    """Reason of a condition of an object, empty: it has none yet."""
    return str(condition(kube.read(manifest), type_).get("reason", ""))


def says(kube: Kube, manifest: Manifest, reason: str, type_: str = "Attached") -> None:
    eventually(
        f"{manifest['metadata']['name']} to say {reason}",
        lambda: said(kube, manifest, type_) == reason,
        60,
        explain=lambda: str(kube.read(manifest).get("status")),
    )


def filters(kube: Kube) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in kube.get(FILTERS).good()["items"]}


def awaited_filters(kube: Kube, what: str, holds: Callable[[dict[str, Manifest]], object]) -> None:
    eventually(what, lambda: bool(holds(filters(kube))), 60, explain=lambda: str(filters(kube)))


def asked_at(manifest: Manifest, route_name: str = "") -> list[tuple[str, str]]:
    """(policy, key) of each descriptor that an EnvoyFilter makes Envoy send on a route; empty name: on its hosts."""
    for each in manifest["spec"]["configPatches"]:
        value = each["patch"].get("value", {})
        if not route_name and each["applyTo"] == "VIRTUAL_HOST":
            return [_asked(entry) for entry in value["rate_limits"]]
        host = each["match"].get("routeConfiguration", {}).get("vhost", {})
        if each["applyTo"] == "HTTP_ROUTE" and host["route"]["name"] == route_name:
            return [_asked(entry) for entry in value["route"]["rate_limits"]]
    return []


def _asked(entry: Mapping[str, Any]) -> tuple[str, str]:
    head, first = entry["actions"]
    ((_, fields),) = first.items()
    return head["generic_key"]["descriptor_value"], fields["descriptor_key"]
