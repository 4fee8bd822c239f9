"""One cluster for all scenarios: the one of TIDEGATE_E2E_KUBECONFIG, or a local node that ends with the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.kubectl import Cluster, missing_parts
from support.helm import CHART, find_helm

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NODE = HERE / "node"
NAMESPACE = "tidegate-system"
LOCAL_VALUES = HERE / "local-values.yaml"
_BUILD_S = 1800
_UP_S = 300


def _node(*arguments: str, timeout_s: float = _UP_S) -> str:
    done = subprocess.run([NODE, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"node {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that has our images."""
    given = os.environ.get("TIDEGATE_E2E_KUBECONFIG")
    helm = find_helm()
    if given:
        # Whoever names a cluster loads the images into it too: see e2e/cluster/README.md.
        yield Cluster(given, helm)
        return
    missing = missing_parts(NODE)
    if missing:
        pytest.skip(f"no local node without {', '.join(missing)}: see e2e/cluster/README.md")
    from e2e.cluster import images

    folder = tmp_path_factory.mktemp("images")
    assert images.main([str(folder)]) == 0
    _node("build", timeout_s=_BUILD_S)
    _node("down")
    _node("up")
    try:
        for archive in sorted(folder.glob("*.tar")):
            _node("load", str(archive))
            archive.unlink()
        yield Cluster(_node("env").strip().partition("KUBECONFIG=")[2], helm)
    finally:
        _node("down")


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The chart in a namespace that enforces Pod Security `restricted`, and Envoy with a caller in front."""
    cluster.apply(
        f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n"
        "  labels: {pod-security.kubernetes.io/enforce: restricted}\n"
    )
    cluster.release(
        "install", "tidegate", str(CHART), "-n", NAMESPACE, "-f", str(LOCAL_VALUES), "--wait", "--timeout", "3m"
    )
    cluster.apply((HERE / "manifests" / "front.yaml").read_text(encoding="utf-8").split("---\n", 1)[0])
    program = cluster.kubectl(
        "create",
        "configmap",
        "programs",
        "-n",
        "front",
        f"--from-file={HERE / 'programs'}",
        "--dry-run=client",
        "-o",
        "yaml",
    )
    cluster.apply(program)
    cluster.apply((HERE / "manifests" / "front.yaml").read_text(encoding="utf-8"))
    cluster.kubectl("rollout", "status", "-n", "front", "deploy/envoy", "--timeout=90s")
    cluster.kubectl("rollout", "status", "-n", "front", "deploy/upstream", "--timeout=90s")
    return cluster
