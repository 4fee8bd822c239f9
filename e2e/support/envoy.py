"""A real Envoy in front of the upstream, its configuration built from plain dicts."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from e2e.support.processes import Process, eventually, running
from examples.demo.stage import envoy_binary

Config = dict[str, object]

_TYPE = "type.googleapis.com/envoy.extensions"
FILTER = "envoy.filters.http.ratelimit"
TIMEOUT = "0.02s"
"""Envoy's own default for asking a rate-limit service."""


START_S = 60.0
"""How long it may take to listen, on a machine that builds and tests other things."""


class Envoy:
    """A running Envoy: where it listens and what it counts."""

    def __init__(self, process: Process, address: tuple[str, int], admin: str) -> None:
        self.process = process
        self.address = address
        self.admin = admin

    def stat(self, name: str) -> int:
        """Sum of all counters whose name ends like that."""
        with urllib.request.urlopen(f"http://{self.admin}/stats", timeout=10) as response:
            found = re.findall(rf"^\S*{re.escape(name)}: (\d+)$", response.read().decode(), re.MULTILINE)
        return sum(int(value) for value in found)


class Filter(msgspec.Struct, frozen=True):
    """The rate-limit filter's own settings.

    Attributes:
        domain: What it asks with.
        deny: failure_mode_deny.
        timeout: How long it waits for the service.
        headers: x-ratelimit-* headers on every answer.
    """

    domain: str
    deny: bool = False
    timeout: str = TIMEOUT
    headers: bool = True


def actions(*parts: Config, **fields: object) -> Config:
    """One `rate_limits` entry: its actions make one descriptor."""
    return {"actions": list(parts), **fields}


def header(name: str, key: str) -> Config:
    return {"request_headers": {"header_name": name, "descriptor_key": key}}


def route(prefix: str, *limits: Config) -> Config:
    """A route to the upstream; `rate_limits` of its own replace those of the virtual host."""
    where: Config = {"cluster": "upstream"}
    if limits:
        where["rate_limits"] = list(limits)
    return {"match": {"prefix": prefix}, "route": where}


def per_route(prefix: str, *limits: Config, domain: str = "") -> Config:
    """A route with `RateLimitPerRoute`, which replaces what the route and the virtual host say."""
    own: Config = {"@type": f"{_TYPE}.filters.http.ratelimit.v3.RateLimitPerRoute", "rate_limits": list(limits)}
    if domain:
        own["domain"] = domain
    return {
        "match": {"prefix": prefix},
        "route": {"cluster": "upstream"},
        "typed_per_filter_config": {FILTER: own},
    }


def header_to_metadata(
    source: str, namespace: str, key: str, *, response: bool = False, number: bool = False
) -> Config:
    """A filter that copies a header into dynamic metadata, from the request or from the response."""
    rule = {
        "header": source,
        "on_header_present": {"metadata_namespace": namespace, "key": key, "type": "NUMBER" if number else "STRING"},
    }
    return {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.header_to_metadata.v3.Config",
            "response_rules" if response else "request_rules": [rule],
        },
    }


def bootstrap(
    *,
    service_port: int,
    upstream_port: int,
    filter_: Filter,
    routes: Sequence[Config],
    vhost_limits: Sequence[Config] = (),
    filters: Sequence[Config] = (),
) -> Config:
    """A whole static configuration; the listener and the admin page take free ports of loopback."""
    virtual_host = {"name": "all", "domains": ["*"], "routes": list(routes), "rate_limits": list(vhost_limits)}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "use_remote_address": True,
        "route_config": {"name": "all", "virtual_hosts": [virtual_host]},
        "http_filters": [
            *filters,
            _rate_limit(filter_),
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "ingress",
        "address": _address(0),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    clusters = [
        _cluster("upstream", upstream_port, {}),
        _cluster("service", service_port, {"typed_extension_protocol_options": http2}),
    ]
    return {
        "static_resources": {"listeners": [listener], "clusters": clusters},
        "admin": {"address": _address(0)},
    }


def _rate_limit(filter_: Filter) -> Config:
    config: Config = {
        "@type": f"{_TYPE}.filters.http.ratelimit.v3.RateLimit",
        "domain": filter_.domain,
        "timeout": filter_.timeout,
        "failure_mode_deny": filter_.deny,
        "rate_limit_service": {
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "service"}},
        },
    }
    if filter_.headers:
        config["enable_x_ratelimit_headers"] = "DRAFT_VERSION_03"
    return {"name": FILTER, "typed_config": config}


def _address(port: int) -> Config:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int, more: Mapping[str, object]) -> Config:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **more,
    }


@contextmanager
def envoy(folder: Path, config: Config) -> Iterator[Envoy]:
    """An Envoy that accepts connections, gone when the block ends."""
    path, admin_path = folder / "envoy.json", folder / "envoy-admin"
    path.write_text(json.dumps(config), encoding="utf-8")
    admin_path.unlink(missing_ok=True)
    command = [
        str(envoy_binary()), "-c", str(path), "--admin-address-path", str(admin_path), "--use-dynamic-base-id",
        "--concurrency", "1", "--log-level", "warning", "--drain-time-s", "1", "--parent-shutdown-time-s", "2",
    ]  # fmt: skip
    with running(command, folder / "envoy.log") as process:
        admin = process.await_("Envoy's admin address", lambda: admin_path.exists() and admin_path.read_text(), START_S)
        seen: list[str] = []
        address = eventually(
            "Envoy's listener",
            lambda: _listening(str(admin), seen),
            START_S,
            alive=lambda: not process.exited,
            explain=lambda: f"{seen[-1:]} at {admin!r}, now {admin_path.read_text()!r}\n{process.output()}",
        )
        yield Envoy(process, address, str(admin))


def _listening(admin: str, seen: list[str]) -> tuple[str, int] | None:
    """Where Envoy listens, None: not yet; `seen` is told why."""
    try:
        urllib.request.urlopen(f"http://{admin}/ready", timeout=10).close()
    except urllib.error.URLError as error:  # refused, or 503 while it initialises
        seen.append(str(error))
        return None
    with urllib.request.urlopen(f"http://{admin}/listeners?format=json", timeout=10) as response:
        listeners = json.load(response)["listener_statuses"]
    socket_address = listeners[0]["local_address"]["socket_address"]
    return socket_address["address"], int(socket_address["port_value"])
