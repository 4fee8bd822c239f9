"""From the release before this one to this one and back, by Helm, while Envoy asks. It takes any other release away.

The release before is the last tag, else the commit of `e2e/UPGRADE_FROM`; its images are made from its own tree.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import images
from e2e.cluster.conftest import HERE, LOCAL_VALUES, ROOT, Figures, front, node, upgrade
from e2e.cluster.kubectl import Cluster, CommandFailed
from e2e.cluster.traffic import NAMESPACE, POLICY, apply_policy, calls_through_envoy, none_failed, ready, under_load

pytestmark = pytest.mark.slow

BUDGET = 300
"""Requests a day of a user."""


def _earlier() -> str:
    """The commit of the release before."""
    tags = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0", "HEAD^"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return tags.stdout.strip() or (ROOT / "e2e" / "UPGRADE_FROM").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the release before."""
    tree = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(["git", "archive", _earlier()], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(tree, filter="data")
    return tree


@pytest.fixture(scope="module")
def before(cluster: Cluster, earlier: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the release before and nothing of this one, and Envoy in front."""
    if "TIDEGATE_E2E_EARLIER_LOADED" not in os.environ:
        assert "TIDEGATE_E2E_KUBECONFIG" not in os.environ, (
            "load the earlier images as e2e/cluster/kind does, and say so"
        )
        folder = tmp_path_factory.mktemp("earlier-images")
        for archive in images.ours(folder, earlier, "earlier"):
            node("load", str(archive))
        shutil.rmtree(folder)
    _clear(cluster)
    cluster.apply(
        f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n"
        "  labels: {pod-security.kubernetes.io/enforce: restricted}\n"
    )
    cluster.release(
        "install", "tidegate", str(earlier / "helm" / "tidegate"), "-n", NAMESPACE, "-f", str(LOCAL_VALUES),
        "--set", "service.image.tag=earlier,operator.image.tag=earlier", "--wait", "--timeout", "3m",
    )  # fmt: skip
    front(cluster, (HERE / "manifests" / "front.yaml").read_text(encoding="utf-8"), "front")
    yield cluster
    _clear(cluster)


def _clear(cluster: Cluster) -> None:
    """No release and none of our kinds: what an earlier chart meets in a new cluster."""
    try:
        cluster.release("uninstall", "tidegate", "-n", NAMESPACE, "--wait", "--timeout", "2m")
    except CommandFailed as error:
        if "not found" not in str(error):
            raise
    cluster.kubectl(
        "delete", "crd", "ratelimitpolicies.tidegate.dev", "cacheprofiles.tidegate.dev", "--ignore-not-found"
    )


def _images(cluster: Cluster) -> set[str]:
    pods = cluster.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component in (service, operator)")["items"]
    return {each["spec"]["containers"][0]["image"].rpartition(":")[2] for each in pods}


def test_an_upgrade_and_a_rollback_keep_calls_counts_and_policies(before: Cluster, figures: Figures) -> None:
    """Every pod is replaced twice; a user's count goes on, and a policy that was Ready is Ready again."""
    apply_policy(before, POLICY % (BUDGET, "24h"))
    assert _images(before) == {"earlier"}
    spent = calls_through_envoy(before, 2, 50, "ann")
    assert set(spent["codes"]) == {"200"}, spent

    with under_load(before, 100) as calls:
        began = time.monotonic()
        upgrade(before)
        upgraded_s = time.monotonic() - began
        before.eventually("only pods of this tree", lambda: _images(before) == {"dev"})
        assert before.eventually("the policy to be Ready", lambda: ready(before))["distribution"]["summary"] == "2/2"
        more = calls_through_envoy(before, 2, 50, "ann")

        began = time.monotonic()
        before.release("rollback", "tidegate", "-n", NAMESPACE, "--wait", "--timeout", "3m")
        rolled_back_s = time.monotonic() - began
        before.eventually("only pods of before", lambda: _images(before) == {"earlier"})
        assert before.eventually("the policy to be Ready", lambda: ready(before))["distribution"]["summary"] == "2/2"
    last = calls_through_envoy(before, 10, 100, "ann")

    figures["upgrade and rollback"] = {
        **none_failed(calls.result()),
        "upgrade, s": round(upgraded_s, 1),
        "rollback, s": round(rolled_back_s, 1),
        "from": _earlier()[:12],
    }
    passed = sum(each["codes"].get("200", 0) for each in (spent, more, last))
    # What was counted before the upgrade counts after it and after the rollback; a few may lie in leases.
    assert set(more["codes"]) == {"200"}, more
    assert 0.8 * BUDGET < passed <= BUDGET, (spent, more, last)
    assert last["codes"].get("429", 0) > 0, last
