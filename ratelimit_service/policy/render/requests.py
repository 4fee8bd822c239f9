"""What Envoy makes of an HTTP request: the descriptors that its `rate_limits` give.

A model of the actions that we render, on the rendered configuration itself, so that `tidegate explain` and Envoy read
the same thing. Held to a real Envoy by tests on random policies and requests.
Source: envoy/source/common/router/router_ratelimit.cc and the `expr` descriptor extension.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from ratelimit_service.policy.emitted import ADDRESS_KEY, NETWORK_KEY
from ratelimit_service.policy.match import Entries
from ratelimit_service.policy.render.actions import Config

Entry = tuple[bytes, bytes]


class HttpRequest(msgspec.Struct, frozen=True):
    """A request as it reaches the rate-limit filter.

    Attributes:
        method: `GET`.
        target: Path with its query string.
        headers: (name in lower case, value) in order.
        remote: Address of the client as Envoy sees it.
        metadata: Dynamic metadata that filters before have set: (filter, path) → text.
    """

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    remote: str = "127.0.0.1"
    metadata: Mapping[tuple[str, ...], str] = {}

    def header(self, name: str) -> bytes | None:
        """What Envoy reads under a name: the first value; `host` and `:authority` are one."""
        wanted = name.lower().encode()
        pseudo = {b":method": self.method, b":path": self.target}
        if wanted in pseudo:
            return pseudo[wanted]
        names = (b"host", b":authority") if wanted in (b"host", b":authority") else (wanted,)
        return next((value for key, value in self.headers if key in names), None)


def descriptors(request: HttpRequest, rate_limits: Sequence[Config]) -> tuple[Entries, ...]:
    """The descriptors in order; an entry of `rate_limits` with a missing source gives none."""
    found = []
    for limit in rate_limits:
        actions = limit["actions"]
        assert isinstance(actions, list)
        entries = [_entry(request, action) for action in actions]
        whole = tuple(entry for entry in entries if entry is not None)
        if len(whole) == len(entries):
            found.append(whole)
    return tuple(found)


def _entry(request: HttpRequest, action: Mapping[str, Mapping[str, object]]) -> Entry | None:
    ((kind, fields),) = action.items()
    if kind == ADDRESS_KEY:
        return _pair(ADDRESS_KEY, str(ipaddress.ip_address(request.remote)))
    if kind == NETWORK_KEY:
        return _pair(NETWORK_KEY, _network(request.remote, fields))
    if kind == "extension":
        typed = fields["typed_config"]
        assert isinstance(typed, dict)
        return _pair(typed["descriptor_key"], request.target.partition(b"?")[0])
    key, value = fields["descriptor_key"], None
    if kind == "generic_key":
        return _pair(key, str(fields["descriptor_value"]))
    if kind == "request_headers":
        value = request.header(str(fields["header_name"]))
    elif kind == "query_parameters":
        value = query_parameter(request.target, str(fields["query_parameter_name"]))
    else:
        value = _metadata(request, fields["metadata_key"])
    return None if value is None else _pair(key, value)


def _pair(key: object, value: str | bytes) -> Entry:
    return str(key).encode(), value if isinstance(value, bytes) else value.encode()


def _network(remote: str, fields: Mapping[str, object]) -> str:
    address = ipaddress.ip_address(remote)
    bits = fields["v4_prefix_mask_len" if address.version == 4 else "v6_prefix_mask_len"]
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def query_parameter(target: bytes, name: str) -> bytes | None:
    """The first value of a query parameter, percent-decoded; `+` stays a plus. None: it is not there."""
    _, _, query = target.partition(b"#")[0].partition(b"?")
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if key and unquote_to_bytes(key) == name.encode():
            return unquote_to_bytes(value)
    return None


def _metadata(request: HttpRequest, key: object) -> bytes | None:
    """Envoy sends no entry for text that is empty or absent."""
    assert isinstance(key, dict)
    path = (str(key["key"]), *(str(part["key"]) for part in key["path"]))
    return request.metadata.get(path, "").encode() or None
