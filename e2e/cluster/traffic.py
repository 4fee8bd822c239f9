"""What scenarios share: a policy, traffic through Envoy while something happens, and what must not come of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from e2e.cluster.kubectl import Cluster

NAMESPACE = "tidegate-system"
"""Where the chart is installed."""

POLICY = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: checkout, namespace: shop}
spec:
  domain: shop.checkout
  rules:
  - name: per-user
    match: [{key: user, type: Any}]
    limits: [{requests: %d, window: %s, algorithm: FixedWindow}]
"""
FEW = POLICY % (5, "1h")
MANY = POLICY % (1_000_000, "1h")


def ready(cluster: Cluster) -> dict | None:
    """The policy's status once it is Ready in its newest generation."""
    found = cluster.get("ratelimitpolicy", "checkout", "-n", "shop")
    conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
    condition = conditions.get("Ready", {})
    current = condition.get("observedGeneration") == found["metadata"]["generation"]
    return found["status"] if condition.get("status") == "True" and current else None


def apply_policy(cluster: Cluster, policy: str) -> dict:
    """Apply it, and wait until it is Ready; gives its status."""
    cluster.apply(policy)
    return cluster.eventually("the policy to be Ready", lambda: ready(cluster))


def calls_through_envoy(cluster: Cluster, seconds: float, rate: float, *users: str, front: str = "front") -> dict:
    """Traffic through Envoy, from beside it in its pod."""
    printed = cluster.kubectl(
        "exec", "-n", front, "deploy/envoy", "-c", "caller", "--",
        "python3", "/programs/caller.py", str(seconds), str(rate), *users, timeout_s=seconds + 60,
    )  # fmt: skip
    return json.loads(printed.splitlines()[-1])


@contextmanager
def under_load(cluster: Cluster, seconds: float, front: str = "front", rate: float = 100) -> Iterator[Future[dict]]:
    """Traffic while the block runs, and at least for so long; its counts come with the result."""
    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(calls_through_envoy, cluster, seconds, rate, front=front)
        time.sleep(1)
        yield calls


def none_failed(calls: dict) -> dict[str, float | str]:
    """Every call had a verdict; gives the figures to keep."""
    failed = sum(count for code, count in calls["codes"].items() if code not in ("200", "429"))
    errors, passed = calls["envoy"].get("error", 0), calls["envoy"].get("failure_mode_allowed", 0)
    assert calls["sent"] > 100, calls
    assert (failed, errors, passed) == (0, 0, 0), calls
    return {"calls": calls["sent"], "failed": failed + errors + passed}


def service_pods(cluster: Cluster) -> list[str]:
    """Names of the service's pods that are not ending."""
    pods = cluster.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=service")["items"]
    return sorted(each["metadata"]["name"] for each in pods if "deletionTimestamp" not in each["metadata"])
