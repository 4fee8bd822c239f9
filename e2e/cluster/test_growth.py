"""More of everything: traffic that the autoscaler answers, and a thousand policies at once."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.cluster.conftest import Figures, node, upgrade
from e2e.cluster.kubectl import Cluster, CommandFailed
from e2e.cluster.traffic import MANY, NAMESPACE, apply_policy, none_failed, service_pods, under_load

pytestmark = pytest.mark.slow

POLICIES = 1000
_AT_ONCE = 8
"""Clients that apply beside each other, so that applying is not what is measured."""


def _has_metrics(cluster: Cluster) -> bool:
    try:
        return bool(json.loads(cluster.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"))["items"])
    except CommandFailed:
        return False


def test_the_autoscaler_answers_load_without_a_failed_call(installed: Cluster, figures: Figures) -> None:
    """One replica becomes more as its processor works; a new one has the policies before it is asked."""
    if not _has_metrics(installed):
        assert "TIDEGATE_E2E_KUBECONFIG" not in os.environ, "the cluster that you name needs a metrics-server"
        node("metrics", timeout_s=1800)
    apply_policy(installed, MANY)
    settings = (
        "service.autoscaling.enabled=true",
        "service.autoscaling.minReplicas=1",
        "service.autoscaling.maxReplicas=3",
        # So little that a few hundred calls a second are much: the node has two cores for everything.
        "service.resources.requests.cpu=10m",
    )
    with under_load(installed, 150, rate=300) as calls:
        upgrade(installed, *settings)
        began = time.monotonic()
        installed.eventually(
            "the autoscaler to read the pods' processors", lambda: _utilisation(installed) is not None, 150
        )
        installed.eventually("a second replica", lambda: _ready_replicas(installed) >= 2, 150)
        took_s = time.monotonic() - began
    figures["autoscaling"] = {**none_failed(calls.result()), "until there are two replicas, s": round(took_s, 1)}
    upgrade(installed)
    installed.eventually("two replicas", lambda: len(service_pods(installed)) == 2, 120)


def _autoscaler(cluster: Cluster) -> dict:
    return cluster.get("hpa", "tidegate", "-n", NAMESPACE)["status"]


def _utilisation(cluster: Cluster) -> int | None:
    metrics = _autoscaler(cluster).get("currentMetrics") or [{}]
    return (metrics[0].get("resource") or {}).get("current", {}).get("averageUtilization")


def _ready_replicas(cluster: Cluster) -> int:
    return cluster.get("deployment", "tidegate", "-n", NAMESPACE)["status"].get("readyReplicas", 0)


def _crowd(number: int) -> str:
    manifest = {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": f"p{number}", "namespace": "crowd"},
        "spec": {
            "domain": f"crowd.p{number}",
            "rules": [
                {
                    "name": "per-user",
                    "match": [{"key": "user", "type": "Any"}],
                    "limits": [{"requests": 5, "window": "1m"}],
                }
            ],
        },
    }
    return json.dumps(manifest)


def _rules(cluster: Cluster, pod: str) -> int:
    """Rules that a replica has in force, by its own metrics."""
    text = cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics")
    return int(float(next(line for line in text.splitlines() if line.startswith("tidegate_config_rules ")).split()[1]))


def _not_ready(cluster: Cluster) -> int:
    columns = "custom-columns=READY:.status.conditions[?(@.type=='Ready')].status"
    lines = cluster.kubectl("get", "ratelimitpolicies", "-n", "crowd", "--no-headers", "-o", columns).split()
    return POLICIES - lines.count("True")


def _go_home(cluster: Cluster, pods: list[str]) -> None:
    """Take the crowd away, and wait until the one policy before it is all that a replica has."""
    # At one stroke: a namespace that ends takes its objects away one by one, and their thousands of events too.
    try:
        cluster.kubectl("delete", "--raw", "/apis/tidegate.dev/v1alpha1/namespaces/crowd/ratelimitpolicies")
    except CommandFailed as error:
        if "not found" not in str(error):
            raise
    cluster.kubectl("delete", "namespace", "crowd", "--ignore-not-found", "--timeout=400s", timeout_s=420)
    cluster.eventually("one rule again", lambda: all(_rules(cluster, pod) == 1 for pod in pods), 120)


def test_a_thousand_policies_at_once(installed: Cluster, figures: Figures) -> None:
    """Live on every replica, then Ready in their status, whose writes are paced; traffic does not notice."""
    apply_policy(installed, MANY)
    pods = service_pods(installed)
    _go_home(installed, pods)
    installed.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: crowd}\n")
    shares = ["\n".join(map(_crowd, range(first, POLICIES, _AT_ONCE))) for first in range(_AT_ONCE)]
    with under_load(installed, 60) as calls:
        began = time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(installed.apply, shares))
        applied_s = time.monotonic() - began
        installed.eventually(
            "every rule on every replica",
            lambda: all(_rules(installed, pod) == POLICIES + 1 for pod in pods),
            120,
        )
        live_s = time.monotonic() - began
        installed.eventually("every policy to be Ready", lambda: _not_ready(installed) == 0, 180)
        ready_s = time.monotonic() - began
    # What a deadline should be is a matter of the machine; what came of it on ours is in docs/benchmarks/cluster.json.
    figures["1,000 policies at once"] = {
        **none_failed(calls.result()),
        "applied, s": round(applied_s, 1),
        "live on every replica, s after the first": round(live_s, 1),
        "live on every replica, s after the last": round(live_s - applied_s, 1),
        "all Ready, s after the first": round(ready_s, 1),
        "all Ready, s after the last": round(ready_s - applied_s, 1),
    }
    _go_home(installed, pods)
