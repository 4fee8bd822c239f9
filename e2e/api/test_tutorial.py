"""The tutorial "From kubectl to 429 in ten minutes", followed with a real API server and a real Envoy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from e2e.api.test_replicas import programmed
from e2e.api.test_status import awaited
from e2e.support.api_server import NAMESPACE, ApiServer
from e2e.support.caller import statuses
from e2e.support.envoy import Filter, actions, bootstrap, envoy, header, route
from e2e.support.kube import Kube, condition
from e2e.support.operators import operator
from e2e.support.processes import eventually
from e2e.support.replicas import replica
from tests.support.pages import blocks

PAGE = Path(__file__).parents[2] / "docs/tutorials/limit-with-kubectl.md"


def tidegate(api: ApiServer, *words: str) -> tuple[int, str]:
    """Exit code and output of a command that asks the API server."""
    done = subprocess.run(
        [sys.executable, "-m", "ratelimit_service.cli", *words, "--kubeconfig", api.kubeconfig("admin")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "400"},
    )
    return done.returncode, done.stdout + done.stderr


def test_from_kubectl_to_429(api: ApiServer, kube: Kube, upstream_port: int, tmp_path: Path) -> None:
    """Apply, wait for Ready, five pass and the sixth is refused; change, break, switch off: each does what it says."""
    checkout = yaml.safe_load(next(block.body for block in blocks(PAGE) if block.name == "checkout.yaml"))
    # A window that cannot end while the test runs on a busy machine.
    checkout["spec"]["rules"][0]["limits"][0]["window"] = "1h"
    ann = {"x-user": "ann"}
    kube.namespace("shop")
    for each in kube.get("/apis/tidegate.dev/v1alpha1/ratelimitpolicies").good()["items"]:
        kube.delete({"apiVersion": "tidegate.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": each["metadata"]})

    with operator(api, tmp_path) as running, replica(tmp_path, "laptop", [running.xds]) as asked:
        kube.apply(checkout).good()
        programmed(kube, checkout, replicas=1)
        code, table = tidegate(api, "get", "policies", "-n", "shop")
        assert code == 0, table
        assert re.search(r"shop/checkout\W+shop\.checkout\W+True\W+1/1\W+[0-9a-f]{16}", table)

        config = bootstrap(
            service_port=asked.grpc_port,
            upstream_port=upstream_port,
            filter_=Filter("shop.checkout", timeout="5s"),
            routes=[route("/")],
            vhost_limits=[actions(header("x-user", "user"))],
        )
        with envoy(tmp_path, config) as front:
            assert statuses(front.address, 7, headers=ann) == [200] * 5 + [429] * 2

            checkout["spec"]["rules"][0]["limits"][0]["requests"] = 8
            page = tmp_path / "checkout.yaml"
            page.write_text(yaml.safe_dump(checkout), encoding="utf-8")
            code, told = tidegate(api, "diff", str(page))
            assert (code, "limits[0].requests: 5 → 8" in told) == (1, True), told
            assert tidegate(api, "validate", "--against-cluster", str(page))[0] == 0
            moved = tmp_path / "moved.yaml"
            elsewhere = {**checkout, "spec": {**checkout["spec"], "domain": "shop.elsewhere"}}
            moved.write_text(yaml.safe_dump(elsewhere), encoding="utf-8")
            code, told = tidegate(api, "validate", "--against-cluster", str(moved))
            assert (code, "shop/checkout" in told, "domain" in told) == (1, True, True), told
            kube.apply(checkout).good()
            programmed(kube, checkout, replicas=1)
            assert tidegate(api, "diff", str(page)) == (0, "nothing would change\n")
            assert statuses(front.address, 4, headers=ann) == [200] * 3 + [429]

            checkout["spec"]["rules"][0]["replaces"] = ["nobody"]
            kube.apply(checkout).good()
            awaited(kube, checkout, "the refusal", lambda found: condition(found, "Accepted")["status"] == "False")
            assert statuses(front.address, 1, headers=ann) == [429]
            code, table = tidegate(api, "get", "policies")
            assert (code, "no rule `nobody` in this policy" in " ".join(table.split())) == (1, True), table

            settings = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "tidegate-settings", "namespace": NAMESPACE},
                "data": {"enforcement": "Shadow"},
            }
            kube.apply(settings).good()
            eventually("Shadow", lambda: statuses(front.address, 1, headers=ann) == [200], 30)
            kube.delete(settings).good()
            eventually("Enforce", lambda: statuses(front.address, 1, headers=ann) == [429], 30)
