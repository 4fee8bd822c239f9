"""The two parts of Envoy's configuration that every integration needs: the cluster of the service, and the filter."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.model import RateLimitPolicy, ServiceErrorAction
from ratelimit_service.policy.render.actions import Config

CLUSTER: Final = "tidegate"
"""Name of the cluster that Envoy reaches the service by."""

TIMEOUT: Final = "0.02s"
"""How long Envoy waits for a verdict: its own default, twice what the service takes at the most."""

FILTER_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit"
_UPSTREAM_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MOST_PORT: Final = 65_535


class InvalidAddress(ValueError):
    """An address of the service that is not HOST:PORT."""


class ServiceTls(msgspec.Struct, frozen=True):
    """How Envoy speaks TLS to the service; paths are of Envoy's own file system.

    Attributes:
        ca: PEM file of the CAs that the service's certificate must be of; its name must be the service's host.
        cert, key: PEM files of what Envoy shows, empty: nothing.
    """

    ca: str
    cert: str = ""
    key: str = ""


class ServiceAddress(msgspec.Struct, frozen=True):
    """Where Envoy finds the service; without `tls` it speaks plain HTTP/2."""

    host: str
    port: int
    tls: ServiceTls | None = None

    @classmethod
    def parse(cls, text: str) -> ServiceAddress:
        """`HOST:PORT`, `[IPV6]:PORT`.

        Raises:
            InvalidAddress: It is neither.
        """
        host, colon, port = text.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not colon or not bare or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= _MOST_PORT:
            raise InvalidAddress(f"{text!r} is not HOST:PORT")
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_literal(self) -> bool:
        """Whether the host is an address and needs no DNS."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def cluster(service: ServiceAddress, name: str = CLUSTER) -> Config:
    """The cluster: gRPC, so HTTP/2; a name is looked up again and again, and every address of it is used."""
    address = {"socket_address": {"address": service.host, "port_value": service.port}}
    secured: Config = {} if service.tls is None else {"transport_socket": _tls(service, service.tls)}
    return {
        "name": name,
        **secured,
        "type": "STATIC" if service.is_literal else "STRICT_DNS",
        "connect_timeout": "0.25s",
        "lb_policy": "ROUND_ROBIN",
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _tls(service: ServiceAddress, tls: ServiceTls) -> Config:
    """Envoy checks no name unless it is told one, so the host is."""
    kind = "IP_ADDRESS" if service.is_literal else "DNS"
    context: Config = {
        "alpn_protocols": ["h2"],
        "validation_context": {
            "trusted_ca": {"filename": tls.ca},
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": service.host}}],
        },
    }
    if tls.cert:
        shown = {"certificate_chain": {"filename": tls.cert}, "private_key": {"filename": tls.key}}
        context["tls_certificates"] = [shown]
    named = {} if service.is_literal else {"sni": service.host}
    typed = {"@type": _UPSTREAM_TLS, **named, "common_tls_context": context}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def http_filter(
    name: str, domain: str, *, deny: bool, stage: int = 0, rate_limits: Sequence[Config] = (), reached_by: str = CLUSTER
) -> Config:
    """The filter, for the list of HTTP filters before the router.

    Args:
        name: Of this filter; per-route settings refer to it.
        domain: What it asks in.
        deny: What to do without an answer: False lets requests pass.
        stage: It takes the `rate_limits` of this stage only.
        rate_limits: Of its own; they replace those of routes and virtual hosts.
        reached_by: The cluster of the service.
    """
    config: Config = {
        "@type": FILTER_TYPE,
        "domain": domain,
        "timeout": TIMEOUT,
        "failure_mode_deny": deny,
        # Envoy's own choice, UNAVAILABLE, makes gRPC clients try again.
        "rate_limited_as_resource_exhausted": True,
        "rate_limit_service": {
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": reached_by}},
        },
    }
    if stage:
        config["stage"] = stage
    if rate_limits:
        config["rate_limits"] = list(rate_limits)
    return {"name": name, "typed_config": config}


def denies(policy: RateLimitPolicy | None) -> bool:
    """`failure_mode_deny` of a filter whose winning policy this is; without one requests pass."""
    return policy is not None and policy.spec.failure.on_service_error is ServiceErrorAction.DENY
