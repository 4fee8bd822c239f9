"""How long the kill switch takes: from the API server's answer until a replica answers otherwise; JSON.

    python -m tests.benchmarks.bench_switch --turns 20 --policies 1000

The operator's flags are the defaults. A real API server, the operator and the replica share the machine with this
script, which asks the replica every few milliseconds. Times are wall times of whatever else ran here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from e2e.api.conftest import install
from e2e.cluster.build import find
from e2e.support.api_server import NAMESPACE, api_server
from e2e.support.kube import Kube
from e2e.support.operators import operator
from e2e.support.processes import eventually
from e2e.support.replicas import Replica, replica
from tests.benchmarks.bench_operator import policy
from tests.benchmarks.machine import facts

DEADLINE_S = 300.0
SETTINGS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "tidegate-settings", "namespace": NAMESPACE},
}


def turn(kube: Kube, asked: Replica, domain: str, enforcement: str, wanted: int) -> float:
    """Seconds from the switch as the API server has it to a replica that goes by it."""
    kube.apply(SETTINGS | {"data": {"enforcement": enforcement}}).good()
    began_s = time.monotonic()
    eventually(enforcement, lambda: asked.ask(domain, key0="ann") == wanted, DEADLINE_S)
    return time.monotonic() - began_s


def measure(turns: int, policies: int, folder: Path) -> dict[str, Any]:
    """Turn the switch there and back."""
    with ExitStack() as parts:
        server = parts.enter_context(api_server(find(), folder))
        install(server)
        kube = server.kube()
        manifests = [policy(number, requests=1) for number in range(policies)]
        for namespace in {each["metadata"]["namespace"] for each in manifests}:
            kube.namespace(namespace)
        for manifest in manifests:
            kube.apply(manifest).good()
        running = parts.enter_context(operator(server, folder, quick=()))
        asked = parts.enter_context(replica(folder, "replica", [running.xds]))
        domain = manifests[0]["spec"]["domain"]
        # One of a minute's window: it is spent again where the window has turned meanwhile.
        eventually("the limit", lambda: asked.ask(domain, key0="ann") == 429, DEADLINE_S)
        lifted, set_again = [], []
        for _ in range(turns):
            lifted.append(turn(kube, asked, domain, "Shadow", 200))
            set_again.append(turn(kube, asked, domain, "Enforce", 429))
    return {"policies": policies, "turns": turns, "lifted": shown(lifted), "set_again": shown(set_again)}


def shown(seconds: list[float]) -> dict[str, float]:
    """Middle and end of some times."""
    return {"p50_s": round(statistics.median(seconds), 3), "max_s": round(max(seconds), 3)}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--policies", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path("build/bench/switch.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"machine": facts(), **measure(given.turns, given.policies, Path(folder))}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
