"""What a platform team lives through with the chart, on a real cluster with real pods. Run in this order."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest

from e2e.cluster.conftest import DOCKERFILE_IMAGES, Figures
from e2e.cluster.kubectl import Cluster, CommandFailed
from e2e.cluster.traffic import (
    FEW,
    MANY,
    NAMESPACE,
    POLICY,
    apply_policy,
    calls_through_envoy,
    none_failed,
    ready,
    service_pods,
    under_load,
)


def test_install_alone_is_a_working_trial(installed: Cluster) -> None:
    """Every pod is ready under Pod Security `restricted`, and a real call is answered."""
    assert "Succeeded" in installed.release("test", "tidegate", "-n", NAMESPACE, "--timeout", "2m")


def test_our_pods_need_no_root_no_shell_and_no_writable_ground(installed: Cluster) -> None:
    """What runs is the interpreter as a user of no name; its image has no shell and takes no file."""
    script = (
        "import os, pathlib\n"
        "shells = [each for each in ('/bin/sh', '/bin/bash', '/bin/dash') if os.path.exists(each)]\n"
        "def refused(path):\n"
        "    try: pathlib.Path(path).write_text('x')\n"
        "    except OSError as error: return error.strerror\n"
        "first = pathlib.Path('/proc/1/cmdline').read_bytes().split(b'\\0')[0].decode()\n"
        "token = os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount/token')\n"
        "print(os.getuid(), shells, refused('/opt/tidegate/x'), refused('/tmp/x'), os.path.basename(first), token)\n"
    )
    for deployment, has_token in (("tidegate", False), ("tidegate-operator", True)):
        seen = installed.kubectl("exec", "-n", NAMESPACE, f"deploy/{deployment}", "--", "python3", "-c", script)
        # Our own image has no shell at all, so whatever runs in these scenarios needs none; a Debian has its own.
        shells = "['/bin/sh', '/bin/bash', '/bin/dash']" if DOCKERFILE_IMAGES else "[]"
        assert seen.strip() == f"65532 {shells} Read-only file system None python3 {has_token}"


def test_an_applied_policy_limits_envoys_traffic(installed: Cluster, figures: Figures) -> None:
    """The tutorial: apply, wait for Ready on every replica, and the sixth request is a 429."""
    began = time.monotonic()
    status = apply_policy(installed, FEW)
    figures["first policy"] = {"from apply to Ready on every replica, s": round(time.monotonic() - began, 2)}
    assert status["distribution"]["summary"] == "2/2"
    calls = calls_through_envoy(installed, 2, 10, "alice")

    assert calls["codes"]["200"] == 5, calls
    assert calls["codes"]["429"] == calls["sent"] - 5, calls


def test_rolling_the_service_fails_no_call(installed: Cluster, figures: Figures) -> None:
    """Every replica is replaced while Envoy asks; preStop and drain leave no call without a verdict."""
    apply_policy(installed, MANY)
    before = service_pods(installed)
    with under_load(installed, 40) as calls:
        began = time.monotonic()
        installed.kubectl("rollout", "restart", "-n", NAMESPACE, "deploy/tidegate")
        installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate", "--timeout=120s")
        took_s = time.monotonic() - began

    figures["rolling restart"] = {**none_failed(calls.result()), "both replicas replaced, s": round(took_s, 1)}
    figures["replicas"] = {"from a pod's creation until it is ready, s": _until_ready_s(installed)}
    assert set(before).isdisjoint(service_pods(installed))


def _until_ready_s(cluster: Cluster) -> float:
    """Whole seconds from the creation of the slowest replica until it was ready, as Kubernetes wrote them down."""
    slowest = 0.0
    for name in service_pods(cluster):
        pod = cluster.get("pod", name, "-n", NAMESPACE)
        conditions = {each["type"]: each["lastTransitionTime"] for each in pod["status"]["conditions"]}
        created, ready_at = map(datetime.fromisoformat, (pod["metadata"]["creationTimestamp"], conditions["Ready"]))
        slowest = max(slowest, (ready_at - created).total_seconds())
    return slowest


def test_scaling_up_and_down_fails_no_call(installed: Cluster, figures: Figures) -> None:
    """2 → 1 → 3 → 1 → 2 replicas under load, and each new one gets the policy before it is asked."""
    with under_load(installed, 45) as calls:
        for replicas in (1, 3, 1, 2):
            installed.kubectl("scale", "-n", NAMESPACE, "deploy/tidegate", f"--replicas={replicas}")
            installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate", "--timeout=90s")
            time.sleep(3)

    figures["scaled 2, 1, 3, 1, 2"] = none_failed(calls.result())
    installed.eventually(
        "status to count two replicas",
        lambda: (ready(installed) or {}).get("distribution", {}).get("summary") == "2/2",
    )


def test_a_killed_operator_is_replaced_by_the_other(installed: Cluster, figures: Figures) -> None:
    """Traffic does not notice, and the next change is live again."""
    holder = installed.get("lease", "-n", NAMESPACE)["items"][0]["spec"]["holderIdentity"]
    with under_load(installed, 15) as calls:
        began = time.monotonic()
        installed.kubectl("delete", "pod", "-n", NAMESPACE, holder.partition("_")[0], "--grace-period=0", "--force")
        status = apply_policy(installed, POLICY % (999_999, "1h"))
        took_s = time.monotonic() - began

    figures["operator's pod deleted by force"] = {
        **none_failed(calls.result()),
        "until the next change was live on every replica, s": round(took_s, 1),
    }
    assert status["distribution"]["summary"] == "2/2"
    installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate-operator", "--timeout=60s")


def test_a_restarted_redis_is_found_again(installed: Cluster, figures: Figures) -> None:
    """While it is gone the failure mode answers; nothing is refused by Envoy, and nothing needs a restart."""
    pods = service_pods(installed)
    with under_load(installed, 25) as calls:
        installed.kubectl("rollout", "restart", "-n", NAMESPACE, "deploy/tidegate-redis")
        installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate-redis", "--timeout=60s")

    began = time.monotonic()
    figures["Redis restarted"] = none_failed(calls.result())
    assert service_pods(installed) == pods
    limited = apply_policy(installed, POLICY % (3, "1h"))
    assert limited["distribution"]["summary"] == "2/2"
    installed.eventually(
        "counts to be shared again",
        lambda: calls_through_envoy(installed, 2, 10, f"u{time.time()}")["codes"].get("200") == 3,
    )
    figures["Redis restarted"]["after the load, until counts were seen to be shared, s"] = round(
        time.monotonic() - began, 1
    )


def test_the_kill_switch_is_live_within_moments(installed: Cluster, figures: Figures) -> None:
    """`enforcement: Shadow` lets everything pass, and `Enforce` limits again."""
    apply_policy(installed, FEW)
    began = time.monotonic()
    installed.kubectl(
        "patch", "configmap", "tidegate-settings", "-n", NAMESPACE, "-p", '{"data":{"enforcement":"Shadow"}}'
    )
    installed.eventually(
        "Shadow", lambda: "429" not in calls_through_envoy(installed, 1, 15, f"s{time.time()}")["codes"], 20
    )
    # What is seen takes a second of calls and two starts of kubectl.
    figures["kill switch"] = {"until Envoy was seen to reject nothing, s": round(time.monotonic() - began, 1)}
    installed.kubectl(
        "patch", "configmap", "tidegate-settings", "-n", NAMESPACE, "-p", '{"data":{"enforcement":"Enforce"}}'
    )
    installed.eventually(
        "Enforce", lambda: "429" in calls_through_envoy(installed, 1, 15, f"e{time.time()}")["codes"], 20
    )


def test_evictions_take_one_replica_at_a_time(installed: Cluster, figures: Figures) -> None:
    """The second eviction is refused by the PodDisruptionBudget; traffic does not notice the first."""
    apply_policy(installed, MANY)
    first, second = service_pods(installed)
    with under_load(installed, 25) as calls:
        assert _evict(installed, first) == ""
        refused = _evict(installed, second)
        installed.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/tidegate", "--timeout=90s")

    assert "disruption budget" in refused
    figures["eviction"] = none_failed(calls.result())


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
def test_a_namespace_goes_with_its_policies(installed: Cluster, figures: Figures) -> None:
    """No finalizer of ours holds it."""
    installed.apply(POLICY.replace("shop", "leaving") % (5, "1h"))
    began = time.monotonic()
    installed.kubectl("delete", "namespace", "leaving", "--timeout=60s")
    figures["namespace deleted"] = {"until it was gone, s": round(time.monotonic() - began, 1)}
    with pytest.raises(CommandFailed, match="not found"):
        installed.kubectl("get", "namespace", "leaving")


def test_uninstalling_keeps_policies_and_envoy_answers(installed: Cluster) -> None:
    """Definitions and policies stay; Envoy, whose service has gone, lets requests pass."""
    installed.release("uninstall", "tidegate", "-n", NAMESPACE, "--wait", "--timeout", "2m")
    calls = calls_through_envoy(installed, 2, 10, "alice")

    assert set(calls["codes"]) == {"200"}, calls
    assert installed.get("ratelimitpolicy", "checkout", "-n", "shop")["spec"]["domain"] == "shop.checkout"
