"""Gateways, routes and EnvoyFilters on a real API server: found late, written, owned, swept, switched off, detached."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.api.conftest import install
from e2e.cluster.build import MissingBinaries, find
from e2e.support.api_server import NAMESPACE, ApiServer, api_server
from e2e.support.kube import Kube, condition
from e2e.support.operators import Operator, operator
from e2e.support.processes import eventually

FOREIGN = Path(__file__).parent / "foreign"
Manifest = dict[str, Any]
FILTERS = "/apis/networking.istio.io/v1alpha3/envoyfilters"


@pytest.fixture
def own_api(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server of the test's own: kinds of the whole cluster come and go here."""
    try:
        binaries = find()
    except MissingBinaries as error:
        pytest.skip(str(error))
    with api_server(binaries, tmp_path) as server:
        install(server)
        yield server


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


def gateway(name: str, class_name: str = "istio") -> Manifest:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "gatewayClassName": class_name,
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    }


def route(name: str, parent: str = "edge") -> Manifest:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop"},
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


def leading(running: Operator) -> None:
    eventually("the operator to lead", lambda: running.is_ready and running.leads, 60)


EDGE = {"kind": "Gateway", "name": "edge"}
API = {"kind": "HTTPRoute", "name": "api"}
PAY = {"kind": "HTTPRoute", "name": "api", "sectionName": "pay"}


def test_policies_attach_to_gateways_and_routes_as_those_come_and_go(own_api: ApiServer, tmp_path: Path) -> None:
    """Kinds that come late, conflicts, promotion, sections, switch-off, detaching; and no request that RBAC forbids."""
    kube = own_api.kube()
    kube.namespace("shop")
    on_edge = policy("on-edge", EDGE)
    kube.apply(on_edge).good()
    since = own_api.mark()
    with operator(own_api, tmp_path, "--istio", "true", name="first") as running:
        leading(running)
        says(kube, on_edge, "TargetNotFound")

        # The kinds come late.
        install_kinds(kube, "gateway.*.yaml", "/apis/gateway.networking.k8s.io/v1/gateways")
        for manifest in (gateway_class("istio", "istio.io/gateway-controller"), gateway("edge"), route("api")):
            kube.apply(manifest).good()
        says(kube, on_edge, "NoIntegration")
        install_kinds(kube, "networking.*.yaml", FILTERS)
        says(kube, on_edge, "Attached")
        awaited_filters(kube, "the Gateway's filter", lambda found: list(found) == ["tidegate-edge"])
        owner = filters(kube)["tidegate-edge"]["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["uid"]) == ("Gateway", kube.read(gateway("edge"))["metadata"]["uid"])

        # A section of a route, one that is not there, and a route with a policy of its own.
        on_rule, on_nothing = policy("on-rule", PAY), policy("on-nothing", {**PAY, "sectionName": "gone"})
        kube.apply(on_rule).good()
        kube.apply(on_nothing).good()
        says(kube, on_rule, "Attached")
        says(kube, on_nothing, "TargetNotFound")
        says(kube, on_nothing, "TargetNotFound", "Accepted")
        awaited_filters(kube, "the rule in it", lambda found: "shop/on-rule" in str(found["tidegate-edge"]["spec"]))

        # Of two policies the older holds; when it goes, the other is promoted.
        younger = policy("younger", EDGE, header="x-other")
        kube.apply(younger).good()
        says(kube, younger, "Conflicted", "Accepted")
        assert "shop/younger" not in str(filters(kube)["tidegate-edge"]["spec"])
        kube.delete(on_edge)
        says(kube, younger, "Attached")
        awaited_filters(kube, "the younger in it", lambda found: "shop/younger" in str(found["tidegate-edge"]["spec"]))

        # What somebody changes comes back; a Gateway of another class has a line to run.
        kube.delete(filters(kube)["tidegate-edge"])
        awaited_filters(kube, "the filter again", lambda found: "tidegate-edge" in found)
        kube.apply(gateway_class("eg", "gateway.envoyproxy.io/gatewayclass-controller")).good()
        kube.apply(gateway("other", "eg")).good()
        elsewhere = policy("elsewhere", {"kind": "Gateway", "name": "other"})
        kube.apply(elsewhere).good()
        says(kube, elsewhere, "NoIntegration")
        message = condition(kube.read(elsewhere), "Attached")["message"]
        assert "tidegate render envoy-gateway - --gateway shop/other | kubectl apply -f -" in message

    # What an operator left behind is swept by the next one, where Istio is switched off.
    assert "tidegate-edge" in filters(kube)
    with operator(own_api, tmp_path, name="second") as running:
        leading(running)
        awaited_filters(kube, "no filter", lambda found: not found)
        says(kube, younger, "NoIntegration")

    with operator(own_api, tmp_path, "--istio", "true", name="third") as running:
        leading(running)
        awaited_filters(kube, "the filter again", lambda found: "tidegate-edge" in found)
        kube.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tidegate-settings", "namespace": NAMESPACE}}
        ).good()
        done = subprocess.run(
            [sys.executable, "-m", "ratelimit_operator", "--kubeconfig", str(own_api.kubeconfig("operator")), "detach"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "none left" in done.stdout
        says(kube, younger, "NoIntegration")
        assert filters(kube) == {}
    assert [each for each in own_api.requests(since) if each.code == 403] == []
