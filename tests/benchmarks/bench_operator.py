"""The operator at scale: start, apply to acknowledged by all, memory, requests to the API server; JSON.

    python -m tests.benchmarks.bench_operator --runs 1000:3 5000:30 --changes 30

`POLICIES:CLIENTS` each, growing: policies are added to those that are there. Up to three of the clients are real
replicas of the service, the others do the protocol's work and nothing else. A real kube-apiserver and all clients share
the machine with the operator, so wall times are those of a busy machine; CPU seconds are the operator's own. "Apply to
acknowledged" ends when `Programmed=True` for the new generation is readable from the API; "start" when everything was
listed, compiled and is given to whoever connects.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from e2e.api.conftest import install
from e2e.cluster.build import find
from e2e.support.api_server import ApiServer, api_server
from e2e.support.kube import Kube, condition
from e2e.support.operators import Operator, operator
from e2e.support.processes import eventually
from e2e.support.replicas import replica
from tests.benchmarks.machine import facts

FLAGS = ("--list-interval", "60s", "--debounce", "200ms")
NAMESPACES = 200
REPLICAS = 3
WRITERS = 4
DEADLINE_S = 600.0


def policy(number: int, requests: int = 100) -> dict[str, Any]:
    """One of many policies: five rules, a domain of its own."""
    namespace = f"team{number % NAMESPACES}"
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": f"p{number}", "namespace": namespace},
        "spec": {
            "domain": f"{namespace}.d{number}",
            "rules": [
                {
                    "name": f"r{rule}",
                    "match": [{"key": f"key{rule}", "type": "Any"}],
                    "limits": [{"requests": requests, "window": "1m"}],
                }
                for rule in range(5)
            ],
        },
    }


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    return round(int(found[1]) / 1024, 1) if found else 0.0


def is_programmed(kube: Kube, manifest: dict[str, Any], generation: int) -> bool:
    """Whether every replica runs that generation, as the API says."""
    found = condition(kube.read(manifest), "Programmed")
    return found.get("status") == "True" and found.get("observedGeneration", 0) >= generation


def changes(kube: Kube, count: int, policies: int) -> list[float]:
    """Seconds from a change to Programmed, one change after the other."""
    took = []
    for number in range(count):
        # Another limit than any run before has set: the same again would change nothing.
        manifest = policy(number * 37 % policies, requests=policies + number)
        began_s = time.perf_counter()
        generation = kube.apply(manifest).good()["metadata"]["generation"]
        eventually(
            "Programmed",
            lambda manifest=manifest, generation=generation: is_programmed(kube, manifest, generation),  # type: ignore[misc]
            DEADLINE_S,
        )
        took.append(time.perf_counter() - began_s)
    return sorted(took)


def writes_while_renewing(api: ApiServer) -> int:
    """Writes of the operator other than the Lease's, while that one is renewed ten times."""
    since = api.mark()

    def writes() -> list[str]:
        return [each.uri for each in api.requests(since) if each.verb not in ("get", "list", "watch")]

    eventually("ten renewals", lambda: sum("leases" in uri for uri in writes()) >= 10, 120)
    return sum("leases" not in uri for uri in writes())


def add(api: ApiServer, first: int, end: int) -> None:
    """Create policies, several at a time."""
    with ThreadPoolExecutor(WRITERS) as writers:
        for done in [writers.submit(_create, api.kube(), range(first + at, end, WRITERS)) for at in range(WRITERS)]:
            done.result()


def _create(kube: Kube, numbers: range) -> None:
    for number in numbers:
        kube.create(policy(number)).good()


@contextmanager
def followers(address: str, count: int) -> Iterator[None]:
    """Clients that only speak the protocol, in one process."""
    if not count:
        yield
        return
    with subprocess.Popen([sys.executable, "-m", "tests.benchmarks.xds_clients", address, str(count)]) as process:
        try:
            yield
        finally:
            process.terminate()


def measure(api: ApiServer, folder: Path, policies: int, added: int, clients: int, count: int) -> dict[str, Any]:
    """One run, after the last so many policies were added."""
    kube, since = api.kube(), api.mark()
    with ExitStack() as parts:
        began_s = time.perf_counter()
        running: Operator = parts.enter_context(operator(api, folder, name=f"operator-{policies}", quick=FLAGS))
        pid = running.process.pid
        eventually("the first push", lambda: running.is_ready and running.leads, DEADLINE_S)
        start_s, start_cpu_s, start_mb = time.perf_counter() - began_s, cpu_s(pid), resident_mb(pid)
        for number in range(min(REPLICAS, clients)):
            parts.enter_context(replica(folder, f"replica-{policies}-{number}", [running.xds]))
        parts.enter_context(followers(running.xds, max(0, clients - REPLICAS)))
        eventually(
            "every status",
            lambda: running.metric("policies", 'condition="Programmed",status="True"') == policies,
            DEADLINE_S,
        )
        all_s, all_cpu_s = time.perf_counter() - began_s, cpu_s(pid)
        eventually("quiet", lambda: writes_while_renewing(api) == 0, DEADLINE_S)
        written = sum("/status" in each.uri for each in api.requests(since))
        since, before_cpu_s = api.mark(), cpu_s(pid)
        took = changes(kube, count, policies)
        change_cpu_s = (cpu_s(pid) - before_cpu_s) / count
        requests = [each for each in api.requests(since) if "leases" not in each.uri]
        eventually("quiet", lambda: writes_while_renewing(api) == 0, DEADLINE_S)
        before_cpu_s, began_s = cpu_s(pid), time.perf_counter()
        idle_writes = writes_while_renewing(api)
        idle_cpu = (cpu_s(pid) - before_cpu_s) / (time.perf_counter() - began_s)
        return {
            "policies": policies,
            "clients": clients,
            "real_replicas": min(REPLICAS, clients),
            "changes": count,
            "start_to_first_push_s": round(start_s, 2),
            "start_to_first_push_cpu_s": round(start_cpu_s, 2),
            "start_to_all_statuses_s": round(all_s, 1),
            "statuses_written": written,
            "cpu_per_status_ms": round((all_cpu_s - start_cpu_s) / max(written, added) * 1e3, 2),
            "apply_to_acknowledged_p50_s": round(statistics.median(took), 3),
            "apply_to_acknowledged_p99_s": round(took[min(len(took) - 1, int(len(took) * 0.99))], 3),
            "cpu_per_change_s": round(change_cpu_s, 3),
            "api_requests_per_change": round(len(requests) / count, 2),
            "idle_writes_besides_the_lease": idle_writes,
            "idle_cpu_share": round(idle_cpu, 4),
            "operator_resident_mb_at_first_push": start_mb,
            "operator_resident_mb": resident_mb(pid),
        }


def sizes(text: str) -> tuple[int, int]:
    """`POLICIES:CLIENTS`."""
    policies, _, clients = text.partition(":")
    return int(policies), int(clients)


def main() -> int:
    """Measure, print a line per run, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=sizes, nargs="+", default=[(1000, 3), (5000, 30)], metavar="POLICIES:CLIENTS")
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("build/bench/operator.json"))
    given = parser.parse_args()
    runs, there = [], 0
    with tempfile.TemporaryDirectory() as folder, api_server(find(), Path(folder)) as api:
        install(api)
        for number in range(NAMESPACES):
            api.kube().namespace(f"team{number}")
        for policies, clients in sorted(given.runs):
            add(api, there, policies)
            runs.append(measure(api, Path(folder), policies, policies - there, clients, given.changes))
            there = policies
            print(json.dumps(runs[-1]), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": facts(), "runs": runs}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
