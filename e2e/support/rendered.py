"""What `tidegate render envoy` prints, put into a whole Envoy configuration as its documentation says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2e.support.envoy import Config, header_to_metadata
from ratelimit_service.policy.documents import SourceFile, parse, plain

_TYPE = "type.googleapis.com/envoy.extensions"
Rendered = Mapping[str, Any]


def set_objects(text: str) -> list[dict[str, Any]]:
    """The objects of a file of manifests."""
    return [plain(document.root) for document in parse(SourceFile("set", text.encode()))[0]]  # type: ignore[misc]


def whole(rendered: Rendered, objects: Sequence[Mapping[str, Any]], *, service_port: int, upstream_port: int) -> Config:
    """A bootstrap with one listener for the first listener of the Gateway, or for the domain; timeouts of 5 s.

    A small Gateway API controller: virtual hosts by hostname, routes by path or gRPC service, and on each the list
    that was rendered for it.
    """
    places = rendered.get("places")
    hosts = [host("all", ["*"], [route("/")], rendered)] if places is None else hosts_of(places, objects)
    clusters = [pointed(cluster, service_port) for cluster in rendered["clusters"]]
    return {
        "static_resources": {
            "listeners": [listener([patient(each) for each in rendered["http_filters"]], hosts)],
            "clusters": [*clusters, upstream_cluster(upstream_port)],
        },
        "admin": {"address": address(0)},
    }


def listener(filters: Sequence[Config], hosts: Sequence[Config]) -> Config:
    """A listener whose clients say who they are in x-forwarded-for, as behind one trusted proxy."""
    tenant = header_to_metadata("x-tenant", "e2e.tenant", "name")
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "use_remote_address": True,
        "xff_num_trusted_hops": 1,
        "route_config": {"name": "all", "virtual_hosts": list(hosts)},
        "http_filters": [
            tenant,
            *filters,
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": "ingress", "address": address(0), "filter_chains": [chain]}


def address(port: int) -> Config:
    """A socket of loopback."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def upstream_cluster(port: int, name: str = "upstream") -> Config:
    """The service behind."""
    endpoint = {"endpoint": {"address": address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def pointed(cluster: Mapping[str, Any], port: int) -> Config:
    """The rendered cluster with the port of the service under test."""
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    assert endpoints["lb_endpoints"][0]["endpoint"]["address"] == address(8081)
    moved = {
        "cluster_name": cluster["name"],
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
    }
    return {**cluster, "load_assignment": moved}


def patient(http_filter: Mapping[str, Any]) -> Config:
    """Statuses are exact only if no call is lost to 20 ms on a busy machine."""
    if "rate_limit_service" not in http_filter["typed_config"]:
        return dict(http_filter)
    assert http_filter["typed_config"]["timeout"] == "0.02s"
    return {**http_filter, "typed_config": {**http_filter["typed_config"], "timeout": "5s"}}


def host(name: str, domains: list[str], routes: list[Config], made: Rendered) -> Config:
    """A virtual host with what was rendered for the listener."""
    return {
        "name": name,
        "domains": domains,
        "routes": routes,
        **_settings(made),
        "rate_limits": made.get("rate_limits", []),
    }


def _settings(made: Rendered) -> Config:
    """Settings of single filters."""
    return {key: made[key] for key in ("typed_per_filter_config",) if key in made}


def route(prefix: str, made: Rendered | None = None) -> Config:
    """A route to the upstream with what was rendered for it."""
    where: Config = {"cluster": "upstream"}
    if made and made.get("rate_limits"):
        where["rate_limits"] = made["rate_limits"]
    return {"match": {"prefix": prefix}, "route": where, **_settings(made or {})}


def hosts_of(places: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]]) -> list[Config]:
    """Every listener's virtual hosts in one: the sets have no two listeners that answer to one name."""
    (gateway,) = (each for each in objects if each["kind"] == "Gateway")
    known = {
        (place["listener"].rpartition("/")[2], place.get("route", ""), place.get("rule", "")): place for place in places
    }
    hosts: dict[str, Config] = {}
    for each in gateway["spec"]["listeners"]:
        whole_listener = known.get((each["name"], "", ""), {})
        for item in (other for other in objects if other["kind"] in ("HTTPRoute", "GRPCRoute")):
            title = f"{item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}"
            for name in item["spec"].get("hostnames", [each.get("hostname", "*")]):
                made = hosts.setdefault(name, host(name, [name], [], whole_listener))
                for index, rule in enumerate(item["spec"]["rules"]):
                    place = known.get((each["name"], title, rule.get("name", index)), {})
                    made["routes"].append(route(_prefix(rule), place))  # type: ignore[attr-defined]
    for made in hosts.values():
        made["routes"].append(route("/"))  # type: ignore[attr-defined]
    return list(hosts.values())


def _prefix(rule: Mapping[str, Any]) -> str:
    (match,) = rule["matches"]
    return str(match["path"]["value"]) if "path" in match else f"/{match['method']['service']}/"
