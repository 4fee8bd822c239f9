"""Gateways, routes and EnvoyFilters on a real API server: found late, written, owned, swept, switched off, detached."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.api.conftest import install
from e2e.cluster.build import MissingBinaries, find
from e2e.support.api_server import NAMESPACE, ApiServer, api_server
from e2e.support.kube import condition
from e2e.support.meshes import (
    ENVOY_GATEWAY,
    GATEWAY_KINDS,
    ISTIO,
    ISTIO_KINDS,
    awaited_filters,
    filters,
    gateway,
    gateway_class,
    install_kinds,
    policy,
    route,
    says,
)
from e2e.support.operators import Operator, operator
from e2e.support.processes import eventually


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
    with operator(own_api, tmp_path, "--istio", "true", "--list-interval", "1s", name="first") as running:
        leading(running)
        says(kube, on_edge, "TargetNotFound")

        # The kinds come late.
        install_kinds(kube, *GATEWAY_KINDS)
        for manifest in (gateway_class("istio", ISTIO), gateway("edge"), route("api")):
            kube.apply(manifest).good()
        says(kube, on_edge, "NoIntegration")
        install_kinds(kube, *ISTIO_KINDS)
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
        kube.apply(gateway_class("eg", ENVOY_GATEWAY)).good()
        kube.apply(gateway("other", "eg")).good()
        elsewhere = policy("elsewhere", {"kind": "Gateway", "name": "other"})
        kube.apply(elsewhere).good()
        says(kube, elsewhere, "NoIntegration")
        message = condition(kube.read(elsewhere), "Attached")["message"]
        assert "tidegate render envoy-gateway --cluster --gateway shop/other | kubectl apply -f -" in message

    # What an operator left behind is swept by the next one, where Istio is switched off.
    assert "tidegate-edge" in filters(kube)
    with operator(own_api, tmp_path, "--list-interval", "1s", name="second") as running:
        leading(running)
        awaited_filters(kube, "no filter", lambda found: not found)
        says(kube, younger, "NoIntegration")

    with operator(own_api, tmp_path, "--istio", "true", "--list-interval", "1s", name="third") as running:
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
