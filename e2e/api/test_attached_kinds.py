"""An operator that writes EnvoyFilters, on an API server with the Gateway API's and Istio's own kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from e2e.api.conftest import install
from e2e.cluster.build import CACHE, MissingBinaries, find
from e2e.support.api_server import NAMESPACE, ApiServer, api_server
from e2e.support.caller import get
from e2e.support.envoy import Config, Envoy, envoy
from e2e.support.kube import Kube, condition
from e2e.support.meshes import (
    ENVOY_GATEWAY,
    FILTERS,
    GATEWAY_KINDS,
    ISTIO,
    ISTIO_KINDS,
    Manifest,
    asked_at,
    definitions,
    gateway,
    gateway_class,
    install_kinds,
    policy,
    route,
    rule,
    says,
    with_spec,
)
from e2e.support.operators import operator
from e2e.support.processes import eventually
from e2e.support.service import service
from e2e.support.told_envoy import Told, traffic
from e2e.support.translators import istio, runnable
from ratelimit_service.cli.main import main

SERVICE = f"tidegate.{NAMESPACE}.svc.cluster.local:8081"
EDGE, API = {"kind": "Gateway", "name": "edge"}, {"kind": "HTTPRoute", "name": "api"}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with all kinds, and an operator that writes."""
    try:
        binaries = find()
    except MissingBinaries as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("mesh")
    with api_server(binaries, folder) as server:
        install(server)
        kube = server.kube()
        for kinds in (GATEWAY_KINDS, ISTIO_KINDS):
            install_kinds(kube, *kinds)
        for name, controller in (("istio", ISTIO), ("eg", ENVOY_GATEWAY)):
            kube.apply(gateway_class(name, controller)).good()
        with operator(server, folder, "--istio", "true", "--list-interval", "1s", name="writer") as running:
            eventually("the operator to lead", lambda: running.is_ready and running.leads, 60)
            yield server


@pytest.fixture
def mesh_kube(mesh: ApiServer) -> Kube:
    """The admin's client."""
    return mesh.kube()


def filters_in(kube: Kube, namespace: str) -> dict[str, Manifest]:
    path = FILTERS.replace("/envoyfilters", f"/namespaces/{namespace}/envoyfilters")
    return {each["metadata"]["name"]: each for each in kube.get(path).good()["items"]}


def command(words: Sequence[str], stdin: str = "", **environment: str) -> str:
    """Standard output of a command that must be good."""
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tidegate(*words: str, stdin: str = "", **environment: str) -> list[Manifest]:
    """The manifests that a command of ours prints."""
    done = CliRunner().invoke(main, list(words), input=stdin, env=environment, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.stdout))


def essence(manifest: Manifest) -> tuple[str, Any]:
    """What a rendered manifest and a written one have in common."""
    return manifest["metadata"]["name"], manifest["spec"]


def levels(kube: Kube, namespace: str, **labels: str) -> None:
    """A namespace with a Gateway and a route."""
    kube.namespace(namespace, **labels)
    kube.apply(gateway("edge", namespace=namespace)).good()
    kube.apply(route("api", namespace=namespace)).good()


def test_what_is_rendered_from_the_cluster_is_what_the_operator_writes(mesh: ApiServer, mesh_kube: Kube) -> None:
    """By --cluster and by kubectl alike, so that printing is the dry run; the API server would take it as it is."""
    kube, config = mesh_kube, str(mesh.kubeconfig("admin"))
    levels(kube, "dry")
    kube.apply(with_spec("edge", "dry", targetRefs=[EDGE], rules=[rule("flood")])).good()
    kube.apply(with_spec("api", "dry", targetRefs=[API], rules=[rule("per-user")])).good()
    selecting = with_spec("web", "dry", workloadSelector={"matchLabels": {"app": "web"}}, rules=[rule("per-web")])
    kube.apply(selecting).good()
    # A tenant's override is nothing that an operator would take, nor what would reach every namespace.
    kube.apply(with_spec("grab", "dry", targetRefs=[EDGE], overrides={"rules": [rule("flood")]})).good()
    kube.namespace("istio-system")
    everywhere = with_spec("every", "istio-system", workloadSelector={"matchLabels": {"app": "web"}}, rules=[rule("r")])
    kube.apply(everywhere).good()
    eventually("the filters", lambda: set(filters_in(kube, "dry")) == {"tidegate-edge", "tidegate-web"}, 60)
    says(kube, selecting, "Attached")
    eventually("the route in it", lambda: asked_at(filters_in(kube, "dry")["tidegate-edge"], "pay"), 60)
    written = sorted(essence(each) for each in filters_in(kube, "dry").values())

    from_cluster = tidegate("render", "istio", "--cluster", "--kubeconfig", config, "--service", SERVICE)
    mine = [each for each in from_cluster if each["metadata"]["namespace"] == "dry"]
    kubectl = str(CACHE / "kubectl")
    read_all = "ratelimitpolicies.tidegate.dev,gateways.gateway.networking.k8s.io,httproutes,grpcroutes,namespaces"
    listed = command([kubectl, "get", "-A", read_all, "-o", "yaml"], KUBECONFIG=config)
    kept = yaml.safe_load(listed)
    kept["items"] = [each for each in kept["items"] if each["metadata"].get("namespace", "dry") == "dry"]
    kept["items"] = [each for each in kept["items"] if each["metadata"]["name"] != "grab"]
    from_list = tidegate("render", "istio", "-", "--service", SERVICE, stdin=yaml.safe_dump(kept))

    assert sorted(map(essence, mine)) == written
    assert sorted(map(essence, from_list)) == written
    command([kubectl, "apply", "--dry-run=server", "-f", "-"], yaml.safe_dump_all(mine), KUBECONFIG=config)
    one = tidegate("render", "istio", "--cluster", "--gateway", "dry/edge", "--service", SERVICE, KUBECONFIG=config)
    assert [each["metadata"]["name"] for each in one] == ["tidegate-edge"]
    parts = tidegate("render", "envoy", "--cluster", "--gateway", "dry/edge", KUBECONFIG=config)
    assert [place.get("route") for place in parts[0]["places"]] == [None, "HTTPRoute dry/api"]


def test_the_line_in_status_prints_what_can_be_applied(mesh: ApiServer, mesh_kube: Kube) -> None:
    """A Gateway of Envoy Gateway: the line of its condition is run as it is written, up to the pipe."""
    kube = mesh_kube
    kube.namespace("line")
    kube.apply(gateway("edge", "eg", "line")).good()
    kube.apply(route("api", namespace="line")).good()
    on_route = with_spec("api", "line", targetRefs=[API], rules=[rule("per-user")])
    kube.apply(on_route).good()
    says(kube, on_route, "NoIntegration")
    message = condition(kube.read(on_route), "Attached")["message"]
    line, _, rest = message.partition("run: ")[2].partition(" | ")
    (made,) = tidegate(*line.split()[1:], KUBECONFIG=str(mesh.kubeconfig("admin")))

    assert line.startswith("tidegate render envoy-gateway --cluster ")
    assert rest == "kubectl apply -f -"
    assert (made["kind"], made["metadata"]["namespace"]) == ("EnvoyPatchPolicy", "line")


def test_levels_meet_as_the_strategies_say(mesh_kube: Kube) -> None:
    """Defaults and overrides, Patch and Atomic, each applied to the same Gateway over one route's policy."""
    kube = mesh_kube
    levels(kube, "levels", platform="true")
    on_route = with_spec("api", "levels", targetRefs=[API], rules=[rule("per-user"), rule("own")])
    kube.apply(on_route).good()
    mine = [("levels/api", "per-user"), ("levels/api", "own")]
    layer = [rule("per-user"), rule("flood")]
    gateways = [("levels/edge", "per-user"), ("levels/edge", "flood")]
    cases = {
        ("defaults", "Patch"): [("levels/edge", "flood"), *mine],
        ("defaults", "Atomic"): mine,
        ("overrides", "Patch"): [*gateways, ("levels/api", "own")],
        ("overrides", "Atomic"): gateways,
    }
    for (field, strategy), expected in cases.items():
        on_gateway = with_spec("edge", "levels", targetRefs=[EDGE], **{field: {"strategy": strategy, "rules": layer}})
        kube.delete(on_gateway)
        kube.apply(on_gateway).good()

        def asked() -> tuple[Any, Any]:
            found = filters_in(kube, "levels").get("tidegate-edge")
            return (asked_at(found, "pay"), asked_at(found)) if found else ([], [])

        eventually(
            f"{field} {strategy}",
            lambda expected=expected: asked() == (expected, gateways),  # type: ignore[misc]
            60,
            explain=lambda: str(asked()),
        )
        says(kube, on_gateway, "Attached")


def test_each_ancestor_has_conditions_of_its_own(mesh_kube: Kube) -> None:
    """A section that is there, a Gateway that is not; and what Envoy cannot do on a route is said."""
    kube = mesh_kube
    levels(kube, "ancestors")
    on_two = with_spec(
        "two", "ancestors", targetRefs=[{**API, "sectionName": "pay"}, {"kind": "Gateway", "name": "gone"}],
        rules=[rule("per-user")], failure={"onServiceError": "Deny"},
    )  # fmt: skip
    kube.apply(on_two).good()
    says(kube, on_two, "TargetNotFound")
    found = {
        (each["ancestorRef"]["kind"], each["ancestorRef"]["name"], each["ancestorRef"].get("sectionName")): {
            one["type"]: one["status"] for one in each["conditions"]
        }
        for each in kube.read(on_two)["status"]["ancestors"]
    }

    assert found == {
        ("HTTPRoute", "api", "pay"): {"Accepted": "True", "Attached": "True"},
        ("Gateway", "gone", None): {"Accepted": "False", "Attached": "False"},
    }
    message = condition(kube.read(on_two), "Attached")["message"]
    assert "failure.onServiceError is ignored on Gateway ancestors/edge" in message


def test_a_route_of_a_namespace_that_a_listener_does_not_choose_is_not_attached(mesh_kube: Kube) -> None:
    """`allowedRoutes` by selector; a label is enough."""
    kube = mesh_kube
    levels(kube, "chooser")
    edge = gateway("edge", namespace="chooser")
    chosen = {"from": "Selector", "selector": {"matchLabels": {"tidegate.dev/team": "web"}}}
    edge["spec"]["listeners"][0]["allowedRoutes"] = {"namespaces": chosen}
    kube.apply(edge).good()
    kube.namespace("chosen", team="api")
    foreign = route("api", namespace="chosen")
    foreign["spec"]["parentRefs"] = [{"name": "edge", "namespace": "chooser"}]
    kube.apply(foreign).good()
    on_route = with_spec("api", "chosen", targetRefs=[API], rules=[rule("per-user")])
    kube.apply(on_route).good()
    says(kube, on_route, "TargetNotFound")
    kube.namespace("chosen", team="web")
    says(kube, on_route, "Attached")


def test_the_root_namespace_is_for_platforms(mesh_kube: Kube) -> None:
    """There an EnvoyFilter would reach every namespace; with the label it is written, without it taken away."""
    kube = mesh_kube
    kube.namespace("istio-system")
    selecting = with_spec("all", "istio-system", workloadSelector={"matchLabels": {"app": "x"}}, rules=[rule("r")])
    kube.apply(selecting).good()
    says(kube, selecting, "UnsupportedTarget")
    assert filters_in(kube, "istio-system") == {}
    kube.namespace("istio-system", platform="true")
    says(kube, selecting, "Attached")
    eventually("the filter", lambda: "tidegate-all" in filters_in(kube, "istio-system"), 60)
    kube.namespace("istio-system", platform="false")
    eventually("no filter", lambda: not filters_in(kube, "istio-system"), 60)


def test_what_nobody_wants_is_swept(mesh_kube: Kube) -> None:
    """One with the release's label that no policy asks for, at the next look; another release's stays."""
    kube = mesh_kube
    kube.namespace("swept")
    for name, controller in (("tidegate-old", "tidegate"), ("theirs", "another")):
        left = {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": name, "namespace": "swept", "labels": {"tidegate.dev/controller": controller}},
            "spec": {"configPatches": []},
        }
        kube.apply(left).good()
    eventually("the sweep", lambda: set(filters_in(kube, "swept")) == {"theirs"}, 60)


BACKENDS = """
apiVersion: v1
kind: Service
metadata: {name: up, namespace: leave}
spec: {clusterIP: 10.0.0.7, ports: [{name: http, port: 80, targetPort: 80, protocol: TCP}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge-istio, namespace: leave}
spec:
  clusterIP: 10.0.0.8
  selector: {gateway.networking.k8s.io/gateway-name: edge}
  ports: [{name: http, port: 80, targetPort: 80, protocol: TCP}]
"""
"""What the Gateway and its route lead to."""


def _bare(manifest: Manifest) -> Manifest:
    """A manifest as its author writes it."""
    metadata = {key: manifest["metadata"][key] for key in ("name", "namespace") if key in manifest["metadata"]}
    return {**{key: manifest[key] for key in ("apiVersion", "kind", "spec")}, "metadata": metadata}


def detach(mesh: ApiServer) -> tuple[int, str]:
    """Exit code and output of `tidegate-operator detach`."""
    config = str(mesh.kubeconfig("operator"))
    done = subprocess.run(
        [sys.executable, "-m", "ratelimit_operator", "--kubeconfig", config, "detach"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _asks_no_more(asking: Envoy, seen: Sequence[int]) -> bool:
    """Twenty answers more, and not one of them was asked for; without a service each asking is counted as let pass."""
    before, count = asking.stat("ratelimit.failure_mode_allowed"), len(seen)
    eventually("more traffic", lambda: len(seen) > count + 20, 60)
    return asking.stat("ratelimit.failure_mode_allowed") == before


@pytest.mark.translators("istio")
def test_detaching_under_traffic_leaves_envoy_answering(
    mesh: ApiServer, mesh_kube: Kube, upstream_port: int, tmp_path: Path
) -> None:
    """What the operator wrote limits through Istio's translation; then the service goes, then what was written.

    One Envoy all the while, told by files as by istiod, and every answer of it is 200 or a rightful 429.
    """
    kube = mesh_kube
    levels(kube, "leave")
    kube.apply(with_spec("edge", "leave", targetRefs=[EDGE], rules=[rule("flood", requests=3)])).good()
    eventually("the filter", lambda: "tidegate-edge" in filters_in(kube, "leave"), 60)
    written = (gateway_class("istio", ISTIO), gateway("edge", namespace="leave"), route("api", namespace="leave"))
    objects = [*yaml.safe_load_all(BACKENDS), *(_bare(kube.read(each)) for each in written)]
    policies = [with_spec("edge", "leave", targetRefs=[EDGE], rules=[rule("flood", requests=3)])]
    ann = {"x-user": "ann", "host": "shop.example.com"}
    named = {"name": "tidegate-settings", "namespace": NAMESPACE}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named}

    with service(tmp_path, policies, "native") as asked:

        def translated() -> Config:
            filters = [_bare(each) for each in filters_in(kube, "leave").values()]
            labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
            found = istio(tmp_path, config=filters, objects=objects, namespace="leave", labels=labels, routes=1)
            return runnable(found, "0.0.0.0_80", upstream_port, service_port=asked.grpc_port)

        told = Told(tmp_path, translated())
        with envoy(tmp_path, told.bootstrap) as asking:
            assert [get(asking.address, "/", ann).status for _ in range(5)] == [200, 200, 200, 429, 429]
            asked.process.stop()
            eventually("Envoy to let pass", lambda: get(asking.address, "/", ann).status == 200, 60)
            assert [get(asking.address, "/", ann).status for _ in range(20)] == [200] * 20

            with traffic(asking.address, ann) as seen:
                code, told_why = detach(mesh)
                assert (code, "none left" in told_why) == (0, True), told_why
                assert filters_in(kube, "leave") == {}
                told.tell(translated())
                eventually("Envoy to ask no more", lambda: _asks_no_more(asking, seen), 60)
            assert set(seen) == {200}
    kube.delete(settings)
    eventually("the filter again", lambda: "tidegate-edge" in filters_in(kube, "leave"), 60)


def test_kinds_that_are_removed_are_told_and_come_back(mesh_kube: Kube) -> None:
    """The Gateway API, then Istio: status says which is gone; installed again, everything is written again."""
    kube = mesh_kube
    kube.namespace("shop")
    objects = (gateway("edge"), route("api"))
    for manifest in objects:
        kube.apply(manifest).good()
    on_edge = policy("on-edge", EDGE)
    kube.apply(on_edge).good()
    says(kube, on_edge, "Attached")

    for manifest in definitions(GATEWAY_KINDS[0]):
        kube.delete(manifest).good()
    eventually("the Gateway API to be gone", lambda: kube.get(GATEWAY_KINDS[1]).code == 404, 60)
    says(kube, on_edge, "TargetNotFound")
    eventually(
        "the reason",
        lambda: "the Gateway API is not installed" in condition(kube.read(on_edge), "Attached")["message"],
        60,
        explain=lambda: json.dumps(kube.read(on_edge)["status"]),
    )
    eventually("no filter", lambda: not filters_in(kube, "shop"), 60)

    install_kinds(kube, *GATEWAY_KINDS)
    for manifest in (gateway_class("istio", ISTIO), gateway_class("eg", ENVOY_GATEWAY), *objects):
        kube.apply(manifest).good()
    says(kube, on_edge, "Attached")
    eventually("the filter again", lambda: "tidegate-edge" in filters_in(kube, "shop"), 60)

    for manifest in definitions(ISTIO_KINDS[0]):
        kube.delete(manifest).good()
    says(kube, on_edge, "NoIntegration")
    install_kinds(kube, *ISTIO_KINDS)
    says(kube, on_edge, "Attached")
    eventually("the filter once more", lambda: "tidegate-edge" in filters_in(kube, "shop"), 60)
