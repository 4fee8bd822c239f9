"""What a person does with kubectl while calls flow: raise a rollout, and turn the kill switch."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest

from e2e.api.test_replicas import programmed
from e2e.api.test_status import policy
from e2e.cluster.kubectl import PATH
from e2e.support.api_server import NAMESPACE, ApiServer
from e2e.support.grpc_load import GrpcLoad
from e2e.support.kube import Kube
from e2e.support.operators import operator
from e2e.support.processes import eventually
from e2e.support.replicas import Replica, replica

_ASK: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
USERS: Final = [f"user-{number}" for number in range(120)]
OLD, NEW = 2, 4


@pytest.fixture(scope="module")
def asked(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One replica that follows one operator."""
    folder = tmp_path_factory.mktemp("rollout")
    with operator(api, folder) as running, replica(folder, "replica", [running.xds]) as following:
        eventually("the operator to lead", lambda: running.is_ready and running.leads, 60)
        yield following


def kubectl(api: ApiServer, *arguments: str) -> str:
    """Run the real one as the admin."""
    done = subprocess.run(
        ["kubectl", "--kubeconfig", str(api.kubeconfig("admin")), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PATH": PATH},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def raised(asked: Replica, domain: str) -> set[str]:
    """Users whose next call is admitted although they have spent the old limit."""
    return {user for user in USERS if asked.ask(domain, user=user) == 200}


def test_a_rollout_is_raised_by_kubectl_under_load(api: ApiServer, kube: Kube, namespace: str, asked: Replica) -> None:
    """Nobody, some, all: those who have the new limit keep it, no count is lost, no call of the load fails."""
    manifest: dict[str, Any] = policy(namespace)
    rule, domain = manifest["spec"]["rules"][0], f"{namespace}.checkout"
    rule["limits"] = [{"requests": OLD, "window": "1h"}]
    rule["rollout"] = {"percent": 0, "limits": [{"requests": NEW, "window": "1h"}]}
    kube.apply(manifest).good()
    programmed(kube, manifest, 1)
    assert {asked.admits(domain, most=OLD, user=user) for user in USERS} == {OLD}
    assert raised(asked, domain) == set()

    shares = []
    with GrpcLoad([asked.grpc], domain, load="x") as load:
        for percent in (20, 100):
            patch = [{"op": "replace", "path": "/spec/rules/0/rollout/percent", "value": percent}]
            kubectl(api, "patch", "-n", namespace, "tgrlp", "checkout", "--type=json", f"--patch={json.dumps(patch)}")
            kubectl(api, "wait", "-n", namespace, "tgrlp/checkout", "--for=condition=Ready", "--timeout=60s")
            programmed(kube, manifest, 1)
            shares.append(raised(asked, domain))

    some, all_of_them = shares
    assert 10 <= len(some) <= 40  # a fifth of 120, by a hash that is always the same
    assert all_of_them == set(USERS)
    # Those of the first step have spent the old limit and two more; the others one more.
    assert raised(asked, domain) == set(USERS) - some
    assert set(load.answers) == {"OK"}


def test_the_kill_switch_turns_under_load(api: ApiServer, kube: Kube, namespace: str, asked: Replica) -> None:
    """One line of kubectl lifts every limit, one sets them again; no call fails and no count is lost."""
    manifest, domain = policy(namespace), f"{namespace}.checkout"
    kube.apply(manifest).good()
    programmed(kube, manifest, 1)
    assert asked.admits(domain, user="ann") == 5

    # An ended rollback leaves the ConfigMap behind, with nothing in it.
    kubectl(api, "delete", "configmap", "-n", NAMESPACE, "tidegate-settings", "--ignore-not-found")
    with GrpcLoad([asked.grpc], domain, load="x") as load:
        kubectl(api, "create", "configmap", "-n", NAMESPACE, "tidegate-settings", "--from-literal=enforcement=Shadow")
        try:
            eventually("Shadow", lambda: asked.ask(domain, user="ann") == 200, 30)
            assert "tidegate_config_shadow 1" in asked.page("/metrics")
        finally:
            kubectl(api, "delete", "configmap", "-n", NAMESPACE, "tidegate-settings")
        eventually("Enforce", lambda: asked.ask(domain, user="ann") == 429, 30)

    assert set(load.answers) == {"OK"}
