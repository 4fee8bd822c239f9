"""The chart's NetworkPolicies, enforced: the parts go on, and who has no business with them does not get through.

The local node's plugin enforces none by itself; kube-router's firewall does while these run (`node firewall`).
A cluster that is named must have a plugin that enforces them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from e2e.cluster.conftest import Figures, node, upgrade
from e2e.cluster.kubectl import Cluster
from e2e.cluster.traffic import FEW, MANY, NAMESPACE, apply_policy, calls_through_envoy, none_failed, under_load

pytestmark = pytest.mark.slow

_NAMED = "kubernetes\\.io/metadata\\.name"
CLOSED = (
    "networkPolicy.enabled=true",
    f"networkPolicy.from[0].namespaceSelector.matchLabels.{_NAMED}=front",
    f"networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.{_NAMED}=monitoring",
    # Where the local node's resolver and API server listen behind their Services.
    "networkPolicy.dns.ports={53,5353}",
    "networkPolicy.apiServer.ports={443,6443,16443}",
)
STRANGER = """
apiVersion: v1
kind: Namespace
metadata: {name: strangers}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: strangers}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: stranger
    image: docker.io/local/peers:dev
    command: [python3, -c, "import signal; signal.pause()"]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""
SERVICE, OPERATOR, REDIS = (
    f"{name}.{NAMESPACE}.svc.cluster.local" for name in ("tidegate-headless", "tidegate-operator", "tidegate-redis")
)


@pytest.fixture
def enforced(installed: Cluster) -> Iterator[Cluster]:
    """A cluster that enforces NetworkPolicies, with a pod that nobody knows."""
    local = "TIDEGATE_E2E_KUBECONFIG" not in os.environ or "TIDEGATE_E2E_LOCAL" in os.environ
    if local:
        node("firewall", timeout_s=1800)
    installed.apply(STRANGER)
    installed.kubectl("wait", "-n", "strangers", "pod/stranger", "--for=condition=Ready", "--timeout=90s")
    yield installed
    upgrade(installed)
    installed.kubectl("delete", "namespace", "strangers", "--timeout=90s")
    if local:
        node("open")


def _reaches(cluster: Cluster, namespace: str, pod: str, host: str, port: int) -> bool:
    """Whether a connection from a container comes about within three seconds."""
    script = (
        "import socket\n"
        f"try: socket.create_connection(('{host}', {port}), 3).close(); print('yes')\n"
        "except OSError: print('no')\n"
    )
    return cluster.kubectl("exec", "-n", namespace, pod, "--", "python3", "-c", script).strip() == "yes"


def test_only_who_has_business_gets_through(enforced: Cluster, figures: Figures) -> None:
    """Closing it costs no call; policies, counts and `helm test` go on; strangers meet silence."""
    apply_policy(enforced, MANY)
    strangers = [(SERVICE, 8081), (SERVICE, 8080), (OPERATOR, 18002), (OPERATOR, 8080), (REDIS, 6379)]
    assert all(_reaches(enforced, "strangers", "stranger", *each) for each in strangers)

    with under_load(enforced, 60) as calls:
        upgrade(enforced, *CLOSED)
        for each in strangers:
            enforced.eventually(
                f"{each} to be closed", lambda each=each: not _reaches(enforced, "strangers", "stranger", *each), 60
            )
    figures["network policies switched on"] = none_failed(calls.result())

    assert apply_policy(enforced, FEW)["distribution"]["summary"] == "2/2"
    calls_of_ann = calls_through_envoy(enforced, 2, 10, "isolated")
    assert calls_of_ann["codes"].get("200") == 5, calls_of_ann
    assert "Succeeded" in enforced.release("test", "tidegate", "-n", NAMESPACE, "--timeout", "2m")
    assert _reaches(enforced, "front", "deploy/upstream", SERVICE, 8081)
    assert not _reaches(enforced, "front", "deploy/upstream", SERVICE, 8080)
    assert not _reaches(enforced, "front", "deploy/upstream", REDIS, 6379)
    # Nor do the parts reach what they have no business with.
    assert _reaches(enforced, NAMESPACE, "deploy/tidegate", REDIS, 6379)
    assert not _reaches(enforced, NAMESPACE, "deploy/tidegate", "upstream.front.svc.cluster.local", 8000)
    assert not _reaches(enforced, NAMESPACE, "deploy/tidegate-operator", REDIS, 6379)
