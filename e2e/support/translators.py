"""Istio's and Envoy Gateway's own translations, and a real Envoy that runs what comes out of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from e2e.support.envoy import Config
from e2e.support.rendered import address, upstream_cluster
from e2e.translators.build import ENVOY_GATEWAY, ISTIO

Resources = dict[str, list[dict[str, Any]]]
"""`listeners`, `routes`, `clusters`: messages of Envoy's API as their projects write them in JSON."""

PATIENT = "5s"
"""In place of 20 ms: statuses are exact only if no call is lost on a busy machine."""


def dump(path: Path, objects: Sequence[Mapping[str, Any]]) -> Path:
    """Manifests as one file of many documents."""
    path.write_text("---\n".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")
    return path


def istio(
    folder: Path,
    *,
    config: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, Any]],
    namespace: str,
    labels: Mapping[str, str],
    routes: int,
    sidecar: str = "",
) -> Resources:
    """What istiod would send to a gateway, or to a sidecar.

    Args:
        folder: For files.
        config: Istio's own kinds.
        objects: Kubernetes' and the Gateway API's.
        namespace: Of the gateway's pod.
        labels: Of the gateway's pod.
        routes: How many routes are awaited.
        sidecar: Address of the workload that the sidecar is of, empty: it is a gateway.
    """
    out = folder / "istio.jsonl"
    environment = {
        "TIDEGATE_CONFIG": str(dump(folder / "config.yaml", config)),
        "TIDEGATE_OBJECTS": str(dump(folder / "objects.yaml", objects)),
        "TIDEGATE_NAMESPACE": namespace,
        "TIDEGATE_LABELS": json.dumps(labels),
        "TIDEGATE_ROUTES": str(routes),
        "TIDEGATE_SIDECAR": sidecar,
        "TIDEGATE_OUT": str(out),
    }
    command = [str(ISTIO), "-test.run", "^TestTranslate$"]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: Resources = {"listeners": [], "routes": [], "clusters": []}
    for line in out.read_text(encoding="utf-8").splitlines():
        ((kind, body),) = json.loads(line).items()
        found[f"{kind}s"].append(body)
    return found


def envoy_gateway(folder: Path, objects: Sequence[Mapping[str, Any]], *, second_scheme: bool) -> Resources:
    """What Envoy Gateway would send to its proxies."""
    command = [
        str(ENVOY_GATEWAY), "experimental", "translate", "--from", "gateway-api", "--to", "xds", "-o", "json",
        "-t", "all", "-f", str(dump(folder / "gateway.yaml", objects)),
    ]  # fmt: skip
    switch = {"EG_XDS_NAME_SCHEME_V2": "true"} if second_scheme else {}
    done = subprocess.run(
        command, env={**os.environ, **switch}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: Resources = {"listeners": [], "routes": [], "clusters": []}
    for packed in _messages(yaml.safe_load(done.stdout)):
        # A dump packs resources as Any; in a static configuration they stand as what they are.
        message = {key: value for key, value in packed.items() if key != "@type"}
        if "filterChains" in message or "defaultFilterChain" in message:
            found["listeners"].append(message)
        elif "virtualHosts" in message:
            found["routes"].append(message)
        elif "connectTimeout" in message and "name" in message and message not in found["clusters"]:
            found["clusters"].append(message)
    return found


def _messages(value: object) -> Iterable[dict[str, Any]]:
    """Every mapping in a document, outermost first."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _messages(each)
    elif isinstance(value, list):
        for each in value:
            yield from _messages(each)


def runnable(
    found: Resources, listener: str, upstream_port: int, *, chain_port: int = 0, service_port: int = 0
) -> Config:
    """A static configuration of one of the listeners, on a free port of loopback.

    What a stock Envoy lacks is left out (Istio's own filters, telemetry, TLS of clients), backends are the test's
    upstream, and the filter under test waits longer; it and its cluster are otherwise as they were translated.

    Args:
        found: What was translated.
        listener: Its name.
        upstream_port: Of the test's upstream.
        chain_port: The filter chain for this destination port, 0: the first.
        service_port: Where the service is in place of its name in the cluster, 0: where the cluster says.
    """
    (chosen,) = (each for each in found["listeners"] if each["name"] == listener)
    chains = [*chosen.get("filterChains", []), *filter(None, [chosen.get("defaultFilterChain")])]
    managers = [
        each["typedConfig"]
        for chain in chains
        if chain_port in (0, chain.get("filterChainMatch", {}).get("destinationPort"))
        for each in chain["filters"]
        if each["name"] == "envoy.filters.network.http_connection_manager"
    ]
    manager = _manager(managers[0], found["routes"])
    used = _clusters(manager)
    clusters = [_reached(each, service_port) for each in found["clusters"] if each["name"].startswith("tidegate")]
    known = {each["name"] for each in clusters}
    network = {"name": "envoy.filters.network.http_connection_manager", "typedConfig": manager}
    return {
        "static_resources": {
            "listeners": [{"name": "ingress", "address": address(0), "filterChains": [{"filters": [network]}]}],
            "clusters": [*clusters, *(upstream_cluster(upstream_port, name) for name in sorted(used - known))],
        },
        "admin": {"address": address(0)},
    }


def _reached(cluster: Mapping[str, Any], service_port: int) -> dict[str, Any]:
    if not service_port:
        return dict(cluster)
    endpoints = [{"lbEndpoints": [{"endpoint": {"address": address(service_port)}}]}]
    assignment = {"clusterName": cluster["name"], "endpoints": endpoints}
    return {**cluster, "type": "STATIC", "loadAssignment": assignment}


def _manager(manager: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if "rds" in manager:
        table = manager["rds"]["routeConfigName"]
        (routes,) = (each for each in tables if each["name"] == table)
    else:
        table, routes = "inbound", manager["routeConfig"]
    for host in routes["virtualHosts"]:
        for route in host.get("routes", []):
            own = route.pop("typedPerFilterConfig", {})
            ours = {name: value for name, value in own.items() if name.startswith("tidegate")}
            if ours:
                route["typedPerFilterConfig"] = ours
    filters = []
    for each in manager["httpFilters"]:
        kind = each.get("typedConfig", {}).get("@type", "")
        if kind.endswith("filters.http.ratelimit.v3.RateLimit"):
            each["typedConfig"]["timeout"] = PATIENT
        if kind.endswith(
            ("ratelimit.v3.RateLimit", "LocalRateLimit", "router.v3.Router", "cors.v3.Cors", "fault.v3.HTTPFault")
        ):
            filters.append(each)
    return {
        "@type": manager["@type"],
        "statPrefix": "ingress",
        "useRemoteAddress": True,
        "xffNumTrustedHops": 1,
        "httpFilters": filters,
        "routeConfig": {"name": table, "virtualHosts": routes["virtualHosts"]},
    }


def _clusters(manager: Mapping[str, Any]) -> set[str]:
    """Clusters that routes and filters of a manager name."""
    return {
        str(each[key])
        for each in _messages(manager)
        for key in ("cluster", "clusterName")
        if isinstance(each.get(key), str)
    }
