"""What a platform team lives through with the chart, on a real cluster with real pods. Run in this order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from e2e.cluster.conftest import CHART, LOCAL_VALUES, NAMESPACE
from e2e.cluster.kubectl import Cluster, CommandFailed

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


def _ready(cluster: Cluster) -> dict | None:
    """The policy's status once it is Ready in its newest generation."""
    found = cluster.get("ratelimitpolicy", "checkout", "-n", "shop")
    conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
    ready = conditions.get("Ready", {})
    current = ready.get("observedGeneration") == found["metadata"]["generation"]
    return found["status"] if ready.get("status") == "True" and current else None


def _apply(cluster: Cluster, policy: str) -> dict:
    cluster.apply(policy)
    return cluster.eventually("the policy to be Ready", lambda: _ready(cluster))


def _call(cluster: Cluster, seconds: float, rate: float, *users: str) -> dict:
    """Traffic through Envoy, from beside it in its pod."""
    printed = cluster.kubectl(
        "exec", "-n", "front", "deploy/envoy", "-c", "caller", "--",
        "python3", "/programs/caller.py", str(seconds), str(rate), *users, timeout_s=seconds + 60,
    )  # fmt: skip
    return json.loads(printed.splitlines()[-1])


@contextmanager
def _under_load(cluster: Cluster, seconds: float) -> Iterator[Future[dict]]:
    """Traffic while the block runs, and at least for so long; its counts come with the result."""
    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(_call, cluster, seconds, 100)
        time.sleep(1)
        yield calls


def _none_failed(calls: dict) -> None:
    assert calls["sent"] > 100, calls
    assert set(calls["codes"]) <= {"200", "429"}, calls
    assert calls["envoy"].get("error", 0) == 0, calls
    assert calls["envoy"].get("failure_mode_allowed", 0) == 0, calls


def _service_pods(cluster: Cluster) -> list[str]:
    pods = cluster.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=service")["items"]
    return sorted(each["metadata"]["name"] for each in pods if "deletionTimestamp" not in each["metadata"])


def test_install_alone_is_a_working_trial(installed: Cluster) -> None:
    """Every pod is ready under Pod Security `restricted`, and a real call is answered."""
    assert "Succeeded" in installed.release("test", "tidegate", "-n", NAMESPACE, "--timeout", "2m")


def test_an_applied_policy_limits_envoys_traffic(installed: Cluster) -> None:
    """The tutorial: apply, wait for Ready on every replica, and the sixth request is a 429."""
    status = _apply(installed, FEW)
    assert status["distribution"]["summary"] == "2/2"
    calls = _call(installed, 2, 10, "alice")

    assert calls["codes"]["200"] == 5, calls
    assert calls["codes"]["429"] == calls["sent"] - 5, calls


def test_rolling_the_service_fails_no_call(installed: Cluster) -> None:
    """Every replica is replaced while Envoy asks; preStop and drain leave no call without a verdict."""
    _apply(installed, MANY)
    before = _service_pods(installed)
    with _under_load(installed, 40) as calls:
        installed.kubectl("rollout", "restart", "-n", NAMESPACE, "deploy/tidegate")
        installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate", "--timeout=120s")

    _none_failed(calls.result())
    assert set(before).isdisjoint(_service_pods(installed))


def test_scaling_up_and_down_fails_no_call(installed: Cluster) -> None:
    """2 → 3 → 1 → 2 replicas under load, and each new one gets the policy before it is asked."""
    with _under_load(installed, 45) as calls:
        for replicas in (3, 1, 2):
            installed.kubectl("scale", "-n", NAMESPACE, "deploy/tidegate", f"--replicas={replicas}")
            installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate", "--timeout=90s")
            time.sleep(3)

    _none_failed(calls.result())
    installed.eventually(
        "status to count two replicas",
        lambda: (_ready(installed) or {}).get("distribution", {}).get("summary") == "2/2",
    )


def test_a_killed_operator_is_replaced_by_the_other(installed: Cluster) -> None:
    """Traffic does not notice, and the next change is live again."""
    holder = installed.get("lease", "-n", NAMESPACE)["items"][0]["spec"]["holderIdentity"]
    with _under_load(installed, 15) as calls:
        installed.kubectl("delete", "pod", "-n", NAMESPACE, holder.partition("_")[0], "--grace-period=0", "--force")
        status = _apply(installed, POLICY % (999_999, "1h"))

    _none_failed(calls.result())
    assert status["distribution"]["summary"] == "2/2"
    installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate-operator", "--timeout=60s")


def test_a_restarted_redis_is_found_again(installed: Cluster) -> None:
    """While it is gone the failure mode answers; nothing is refused by Envoy, and nothing needs a restart."""
    pods = _service_pods(installed)
    with _under_load(installed, 25) as calls:
        installed.kubectl("rollout", "restart", "-n", NAMESPACE, "deploy/tidegate-redis")
        installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate-redis", "--timeout=60s")

    _none_failed(calls.result())
    assert _service_pods(installed) == pods
    limited = _apply(installed, POLICY % (3, "1h"))
    assert limited["distribution"]["summary"] == "2/2"
    installed.eventually(
        "counts to be shared again", lambda: _call(installed, 2, 10, f"u{time.time()}")["codes"].get("200") == 3
    )


def test_the_kill_switch_is_live_within_moments(installed: Cluster) -> None:
    """`enforcement: Shadow` lets everything pass, and `Enforce` limits again."""
    _apply(installed, FEW)
    installed.kubectl(
        "patch", "configmap", "tidegate-settings", "-n", NAMESPACE, "-p", '{"data":{"enforcement":"Shadow"}}'
    )
    installed.eventually("Shadow", lambda: "429" not in _call(installed, 1, 15, f"s{time.time()}")["codes"], 20)
    installed.kubectl(
        "patch", "configmap", "tidegate-settings", "-n", NAMESPACE, "-p", '{"data":{"enforcement":"Enforce"}}'
    )
    installed.eventually("Enforce", lambda: "429" in _call(installed, 1, 15, f"e{time.time()}")["codes"], 20)


def test_evictions_take_one_replica_at_a_time(installed: Cluster) -> None:
    """The second eviction is refused by the PodDisruptionBudget; traffic does not notice the first."""
    _apply(installed, MANY)
    first, second = _service_pods(installed)
    with _under_load(installed, 25) as calls:
        assert _evict(installed, first) == ""
        refused = _evict(installed, second)
        installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate", "--timeout=90s")

    assert "disruption budget" in refused
    _none_failed(calls.result())


def _evict(cluster: Cluster, pod: str) -> str:
    """Evict a pod as a drain does; gives the refusal, empty when it was taken."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    try:
        cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    except CommandFailed as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_a_namespace_goes_with_its_policies(installed: Cluster) -> None:
    """No finalizer of ours holds it."""
    installed.apply(POLICY.replace("shop", "leaving") % (5, "1h"))
    installed.kubectl("delete", "namespace", "leaving", "--timeout=60s")
    with pytest.raises(CommandFailed, match="not found"):
        installed.kubectl("get", "namespace", "leaving")


@pytest.mark.slow
def test_an_upgrade_and_a_rollback_fail_no_call(installed: Cluster) -> None:
    """Values change, pods are replaced, and back."""
    _apply(installed, MANY)
    with _under_load(installed, 70) as calls:
        installed.release(
            "upgrade", "tidegate", str(CHART), "-n", NAMESPACE, "-f", str(LOCAL_VALUES),
            "--set", "service.logLevel=debug,operator.logLevel=debug", "--wait", "--timeout", "2m",
        )  # fmt: skip
        installed.release("rollback", "tidegate", "-n", NAMESPACE, "--wait", "--timeout", "2m")

    _none_failed(calls.result())


def test_uninstalling_keeps_policies_and_envoy_answers(installed: Cluster) -> None:
    """Definitions and policies stay; Envoy, whose service has gone, lets requests pass."""
    installed.release("uninstall", "tidegate", "-n", NAMESPACE, "--wait", "--timeout", "2m")
    calls = _call(installed, 2, 10, "alice")

    assert set(calls["codes"]) == {"200"}, calls
    assert installed.get("ratelimitpolicy", "checkout", "-n", "shop")["spec"]["domain"] == "shop.checkout"
