"""The page that tells what a real cluster did to the chart, from the JSON that `make e2e-cluster` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

PATH: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "cluster.json"
_CALLS: Final = ("calls", "failed")


def render_cluster_figures() -> str:
    """`docs/explanation/on-a-cluster.md`."""
    found: dict[str, dict[str, float | str]] = json.loads(PATH.read_text(encoding="utf-8"))
    loaded = {name: each for name, each in found.items() if "calls" in each}
    lines = [
        *_HEAD,
        "| what happened | calls | failed |",
        "|---|---|---|",
        *(f"| {name} | {each['calls']:,} | {each['failed']} |" for name, each in loaded.items()),
        "",
        "## How long it took",
        "",
        "| what happened | what was timed | |",
        "|---|---|---|",
        *(
            f"| {name} | {what.removesuffix(', s').replace(', s ', ' ')} | {value}{' s' if what != 'from' else ''} |"
            for name, each in found.items()
            for what, value in each.items()
            if what not in _CALLS
        ),
        *_TAIL,
    ]
    return "\n".join(lines) + "\n"


_HEAD: Final = (
    "# What a cluster does to it",
    "",
    (
        "Made by `make generate` from what `make e2e-cluster` wrote "
        "([cluster.json](../benchmarks/cluster.json)); nothing here was typed."
    ),
    "",
    (
        "The chart runs on a real cluster of one node (Kubernetes 1.34: containerd, kubelet, kube-proxy, "
        "cluster DNS), in a namespace that enforces Pod Security `restricted`."
    ),
    (
        "Before it stands an Envoy as a pod, which finds the replicas by the headless Service (`STRICT_DNS`) "
        "and asks for each of some hundred requests a second."
    ),
    (
        "A call has failed when the client got anything but 200 or 429, when Envoy counted an error, or when "
        "Envoy let a request pass because it had no verdict."
    ),
    "",
    (
        "The machine had two cores for the whole cluster and for much else, so times are long ones, and Envoy "
        "waits 1 s for a verdict, not 20 ms: what is shown is that no call is lost, not how fast it is "
        "answered."
    ),
    "",
    "## Calls while it happened",
    "",
)
_TAIL: Final = (
    "",
    (
        "- An operator whose pod is deleted gives its Lease up; one that crashes is missed for "
        "the 15 seconds of its Lease, and by changes only: "
        "replicas go on with what they have."
    ),
    (
        "- A pod that ends has to wait until its name is forgotten: `service.preStopSeconds` is longer than the TTL of "
        "cluster DNS and Envoy's refresh together. With 5 s for 5 s and 1 s, one of 2,500 calls during an eviction "
        "was let pass without a verdict; with a TTL of 1 s none was, in two runs."
    ),
    "- While Redis is away each policy's failure mode decides, by default a share of the limit for each replica.",
    (
        "- Of 1,000 policies, each is live on every replica within moments of being applied; their status "
        "follows at 50 writes a second, so that a crowd does not drown the API server."
    ),
    (
        "- A new CA is brought in three steps: both CAs trusted by both sides, then certificates of the new "
        "one, then the old one dropped. Streams that are open go on, new ones use what the files say."
    ),
    (
        "- NetworkPolicies are enforced by kube-router's firewall, since the node's own bridge enforces none. "
        "Strangers reach neither Redis, nor xDS, nor the metrics, nor port 8081."
    ),
)
