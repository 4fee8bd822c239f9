"""Kubernetes Events: what turned is told once, and a restart of the operator turns nothing."""

from __future__ import annotations

from pathlib import Path

from e2e.api.test_replicas import programmed
from e2e.api.test_status import policy
from e2e.support.api_server import ApiServer
from e2e.support.kube import Kube
from e2e.support.operators import operator
from e2e.support.processes import eventually
from e2e.support.replicas import replica

POLICIES = 100


def told(kube: Kube, namespace: str) -> list[str]:
    """`<policy> <reason>` of each Event, sorted."""
    found = kube.get(f"/api/v1/namespaces/{namespace}/events").good()["items"]
    return sorted(f"{each['involvedObject']['name']} {each['reason']}" for each in found)


def test_a_restart_tells_nothing_anew(api: ApiServer, kube: Kube, namespace: str, tmp_path: Path) -> None:
    """100 policies are announced once each; a new operator and a new replica add only what turned since."""
    manifests = [policy(namespace, f"p{number}", f"{namespace}.d{number}") for number in range(POLICIES)]
    with operator(api, tmp_path, name="one") as one, replica(tmp_path, "replica", [one.xds]):
        for manifest in manifests:
            kube.apply(manifest).good()
        first = [f"{each['metadata']['name']} Programmed" for each in manifests]
        eventually("an event of each", lambda: told(kube, namespace) == sorted(first), 90)

    with operator(api, tmp_path, name="two") as two:
        # Without a replica for a while, so that every policy is on its way again.
        eventually("two to lead", lambda: two.is_ready and two.leads, 60)
        with replica(tmp_path, "replica-two", [two.xds]):
            for manifest in manifests:
                programmed(kube, manifest, 1)
            manifests[0]["spec"]["rules"][0]["replaces"] = ["nobody"]
            kube.apply(manifests[0]).good()
            eventually("the event of what turned", lambda: "p0 Invalid" in told(kube, namespace), 60)

    said = told(kube, namespace)
    assert [each for each in said if each not in first] == ["p0 Invalid"]
    assert len(said) == POLICIES + 1
