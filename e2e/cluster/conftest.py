"""One cluster for all scenarios: the one of TIDEGATE_E2E_KUBECONFIG, or a local node that ends with the tests."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.kubectl import Cluster, missing_parts
from e2e.cluster.traffic import NAMESPACE
from support.helm import CHART, find_helm

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NODE = HERE / "node"
LOCAL_VALUES = HERE / "local-values.yaml"
DOCKERFILE_IMAGES = os.environ.get("TIDEGATE_E2E_IMAGES", "")
"""Folder with the archives that `e2e/cluster/dockerfile` wrote, to be run in place of those of `images`."""
_BUILD_S = 1800
_UP_S = 300

Figures = dict[str, dict[str, float | str]]
"""What was measured, by scenario; `docs/benchmarks/cluster.json` is a copy of what is written."""


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    """Where scenarios keep what they measure; written beside what earlier runs of other scenarios measured."""
    path = ROOT / "build" / "bench" / "cluster.json"
    kept: Figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    yield kept
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def node(*arguments: str, timeout_s: float = _UP_S) -> str:
    """Run a command of the local node; gives what it printed."""
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
    node("build", timeout_s=_BUILD_S)
    node("down")
    node("up")
    try:
        for archive in sorted(folder.glob("*.tar")):
            node("load", str(archive))
            archive.unlink()
        # What `dockerfile` made takes the place of ours.
        for archive in sorted(Path(DOCKERFILE_IMAGES).glob("*.tar")) if DOCKERFILE_IMAGES else ():
            node("load", str(archive))
        yield Cluster(node("env").strip().partition("KUBECONFIG=")[2], helm)
    finally:
        node("down")


@pytest.fixture(scope="session")
def installed(cluster: Cluster, figures: Figures) -> Cluster:
    """The chart in a namespace that enforces Pod Security `restricted`, and Envoy with a caller in front."""
    cluster.apply(
        f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n"
        "  labels: {pod-security.kubernetes.io/enforce: restricted}\n"
    )
    began = time.monotonic()
    upgrade(cluster, install=True)
    figures["install"] = {"until every pod is ready, s": round(time.monotonic() - began, 1)}
    front(cluster, (HERE / "manifests" / "front.yaml").read_text(encoding="utf-8"), "front")
    return cluster


def upgrade(cluster: Cluster, *settings: str, install: bool = False) -> None:
    """Upgrade the release to the chart and images of this tree with these settings on top of the tests' own.

    `install`: there may be none yet; a cluster that is named may have one of a run before.
    """
    more = [part for each in settings for part in ("--set", each)]
    values = ("-f", str(LOCAL_VALUES), *more, *(["--install"] if install else []))
    cluster.release("upgrade", "tidegate", str(CHART), "-n", NAMESPACE, *values, "--wait", "--timeout", "3m")


def front(cluster: Cluster, manifest: str, namespace: str) -> None:
    """An upstream, and an Envoy with a caller beside it, in a namespace."""
    cluster.apply(manifest.split("---\n", 1)[0])
    program = cluster.kubectl(
        "create",
        "configmap",
        "programs",
        "-n",
        namespace,
        f"--from-file={HERE / 'programs'}",
        "--dry-run=client",
        "-o",
        "yaml",
    )
    cluster.apply(program)
    cluster.apply(manifest)
    cluster.kubectl("rollout", "status", "-n", namespace, "deploy/envoy", "--timeout=90s")
    cluster.kubectl("rollout", "status", "-n", namespace, "deploy/upstream", "--timeout=90s")
