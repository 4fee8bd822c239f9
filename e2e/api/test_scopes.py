"""A release over some namespaces only: the chart's rights and flags, and no others, on a real API server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.api.conftest import CRDS
from e2e.api.test_status import Manifest, condition, judged, policy
from e2e.cluster.build import MissingBinaries, find
from e2e.support.api_server import NAMESPACE, ApiServer, api_server
from e2e.support.meshes import FILTERS, filters, install_kinds
from e2e.support.operators import operator
from e2e.support.processes import eventually
from support.helm import CHART, find_helm, rendered

RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Lease", "ConfigMap")
OF_THE_POD = ("--xds", "--admin", "--identity")
"""Flags of the chart in whose place the test gives its own: addresses, files and names of a pod."""


@pytest.fixture(scope="module")
def chart() -> list[Manifest]:
    """What the chart renders for a team with two namespaces and Istio."""
    settings = "rbac.scope=namespaces,rbac.namespaces={left,right},istio.enabled=true,crds.enabled=false"
    return rendered(find_helm(), CHART, ["--set", settings])


@pytest.fixture
def narrow_api(chart: list[Manifest], tmp_path: Path) -> Iterator[ApiServer]:
    """An API server of the test's own, on which the operator has the chart's rights."""
    try:
        binaries = find()
    except MissingBinaries as error:
        pytest.skip(str(error))
    with api_server(binaries, tmp_path) as server:
        kube = server.kube()
        for name in (NAMESPACE, "left", "right", "elsewhere"):
            kube.namespace(name)
        for path in (CRDS / "ratelimitpolicies.yaml", CRDS / "cacheprofiles.yaml"):
            kube.apply(yaml.safe_load(path.read_text(encoding="utf-8"))).good()
        install_kinds(kube, "gateway.*.yaml", "/apis/gateway.networking.k8s.io/v1/gateways")
        install_kinds(kube, "networking.*.yaml", FILTERS)
        for manifest in chart:
            if manifest["kind"] in RIGHTS:
                kube.apply(manifest).good()
        yield server


def flags(chart: list[Manifest], kind: str) -> list[str]:
    """What the chart tells the operator of that Deployment or Job, but for what is a pod's own."""
    container = next(
        each["spec"]["template"]["spec"]["containers"][0]
        for each in chart
        if each["kind"] == kind and each["metadata"]["labels"]["app.kubernetes.io/component"] in ("operator", "detach")
    )
    return [each for each in container["args"] if not each.startswith(OF_THE_POD)]


def test_a_release_needs_no_right_over_the_cluster(
    narrow_api: ApiServer, chart: list[Manifest], tmp_path: Path
) -> None:
    """Policies of its namespaces become Ready and attach, others are left alone, and nothing is refused."""
    assert not [each for each in chart if each["kind"].startswith("ClusterRole")]
    kube = narrow_api.kube()
    ours, theirs = policy("left"), policy("elsewhere")
    sidecars = policy("right", domain="", workloadSelector={"matchLabels": {"app": "web"}})
    del sidecars["spec"]["domain"]
    sidecars["spec"]["rules"][0]["match"] = [
        {"key": "user", "type": "Any", "from": {"type": "Header", "name": "x-user"}}
    ]
    for manifest in (ours, theirs, sidecars):
        kube.apply(manifest).good()

    with operator(narrow_api, tmp_path, *flags(chart, "Deployment")) as running:
        eventually(
            "the operator to lead", lambda: running.is_ready and running.leads, 60, explain=running.process.output
        )
        assert condition(judged(kube, ours), "Accepted")["status"] == "True"
        eventually("the sidecars' filter", lambda: "right" in str(filters(kube)), 60, explain=running.process.output)
        assert "status" not in kube.read(theirs)

    # As the pre-delete hook does, when no operator is left to be told.
    kubeconfig = str(narrow_api.kubeconfig("operator"))
    detach, sub = flags(chart, "Job")[:-1], flags(chart, "Job")[-1]
    done = subprocess.run(
        [sys.executable, "-m", "ratelimit_operator", "--kubeconfig", kubeconfig, *detach, sub],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert filters(kube) == {}
    assert [each for each in narrow_api.requests() if each.code == 403] == []
