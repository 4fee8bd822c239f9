"""Two operators and three replicas as processes: from `kubectl apply` to every replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.api.test_status import Manifest, awaited, policy
from e2e.support.api_server import NAMESPACE, ApiServer
from e2e.support.grpc_load import GrpcLoad
from e2e.support.kube import Kube, condition
from e2e.support.operators import Operator, operator
from e2e.support.processes import eventually
from e2e.support.replicas import Replica, replica


class Plane:
    """Everything that runs."""

    def __init__(self, operators: list[Operator], replicas: list[Replica]) -> None:
        self.operators = operators
        self.replicas = replicas

    @property
    def holder(self) -> Operator:
        return next(each for each in self.operators if not each.process.exited and each.leads)


@contextmanager
def running_plane(api: ApiServer, folder: Path) -> Iterator[Plane]:
    """Two operators, three replicas, all of them connected; no policy of another test is left."""
    kube = api.kube()
    for each in kube.get("/apis/tidegate.dev/v1alpha1/ratelimitpolicies").good()["items"]:
        kube.delete({"apiVersion": "tidegate.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": each["metadata"]})
    with ExitStack() as parts:
        operators = [parts.enter_context(operator(api, folder, name=f"operator-{number}")) for number in range(2)]
        for each in operators:
            eventually("the operator to be ready", lambda each=each: each.is_ready, 60)  # type: ignore[misc]
        places = [each.xds for each in operators]
        replicas = [parts.enter_context(replica(folder, f"replica-{number}", places)) for number in range(3)]
        eventually("three streams", lambda: sum(each.metric("xds_clients") for each in operators) == 3, 60)
        yield Plane(operators, replicas)


@pytest.fixture(scope="module")
def plane(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One for all tests of the module: none of them ends a part of it."""
    with running_plane(api, tmp_path_factory.mktemp("plane")) as running:
        yield running


def programmed(kube: Kube, manifest: Manifest, replicas: int = 3, timeout_s: float = 60) -> Manifest:
    """The object, once that many replicas run its present form."""
    return awaited(
        kube,
        manifest,
        f"Programmed by {replicas}",
        lambda found: (
            condition(found, "Programmed").get("status") == "True"
            and condition(found, "Programmed")["observedGeneration"] == found["metadata"]["generation"]
            and found["status"]["distribution"]["summary"] == f"{replicas}/{replicas}"
        ),
        timeout_s,
    )


def limit(manifest: Manifest, requests: int) -> None:
    """Set the one limit of a policy."""
    manifest["spec"]["rules"][0]["limits"][0]["requests"] = requests


def test_a_policy_is_programmed_when_every_replica_runs_it(kube: Kube, namespace: str, plane: Plane) -> None:
    """Ready says so, each replica limits by it, a change is live everywhere, and a deletion too."""
    manifest, domain = policy(namespace), f"{namespace}.checkout"
    kube.apply(manifest).good()

    found = programmed(kube, manifest)
    assert condition(found, "Ready")["status"] == "True"
    assert [each.admits(domain, user="ann") for each in plane.replicas] == [5, 5, 5]

    limit(manifest, 7)
    kube.apply(manifest).good()
    programmed(kube, manifest)
    assert [each.admits(domain, user="ann") for each in plane.replicas] == [2, 2, 2]

    kube.delete(manifest).good()
    eventually("the end of the limit", lambda: all(each.ask(domain, user="ann") == 200 for each in plane.replicas), 30)


def test_changes_under_load_lose_no_call(kube: Kube, namespace: str, plane: Plane) -> None:
    """Ten changes while gRPC calls flow to every replica: each call is answered, and the last limit is live."""
    manifest, domain = policy(namespace), f"{namespace}.checkout"
    kube.apply(manifest).good()
    programmed(kube, manifest)

    with GrpcLoad([each.grpc for each in plane.replicas], domain, load="x") as load:
        for requests in range(6, 16):
            limit(manifest, requests)
            kube.apply(manifest).good()
        programmed(kube, manifest)

    assert set(load.answers) == {"OK"}
    assert load.answers.total() > 10
    assert plane.replicas[0].admits(domain, user="bob") == 15


def test_a_pod_that_does_not_connect_is_counted(kube: Kube, namespace: str, plane: Plane) -> None:
    """A ready endpoint without a stream: 3 of 4, and not Programmed."""
    manifest = policy(namespace)
    endpoints = [
        {"addresses": [f"10.0.0.{number}"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": name}}
        for number, name in enumerate(("replica-0", "replica-1", "replica-2", "replica-3"))
    ]
    slices: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "tidegate-abc",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "tidegate"},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
    }
    kube.apply(slices).good()
    try:
        kube.apply(manifest).good()
        found = awaited(
            kube,
            manifest,
            "3/4",
            lambda found: found.get("status", {}).get("distribution", {}).get("summary") == "3/4",
            60,
        )
        assert condition(found, "Programmed")["reason"] == "PartiallyProgrammed"
    finally:
        kube.delete(slices).good()
    programmed(kube, manifest)


def test_the_kill_switch_lifts_every_limit_and_sets_it_again(kube: Kube, namespace: str, plane: Plane) -> None:
    """One ConfigMap: nothing is rejected anywhere, and no policy's version changes."""
    manifest, domain = policy(namespace), f"{namespace}.checkout"
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tidegate-settings", "namespace": NAMESPACE},
        "data": {"enforcement": "Shadow"},
    }
    kube.apply(manifest).good()
    version = programmed(kube, manifest)["status"]["distribution"]["version"]
    asked = plane.replicas[0]
    assert asked.admits(domain, user="ann") == 5

    kube.apply(settings).good()
    eventually("Shadow", lambda: asked.ask(domain, user="ann") == 200, 30)
    kube.delete(settings).good()
    eventually("Enforce", lambda: asked.ask(domain, user="ann") == 429, 30)

    assert kube.read(manifest)["status"]["distribution"]["version"] == version
