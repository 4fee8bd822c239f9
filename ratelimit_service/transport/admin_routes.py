"""Which admin page answers what, and to whom. Pure: no socket, no loop.

Pages that tell what policies say, or that spend budgets, answer peers of this machine only,
unless `--admin-expose` names them (DECISIONS 37).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

_SIDECAR: Final = ipaddress.ip_address("127.0.0.6")
"""Where an Istio sidecar sends its inbound traffic from: loopback, and yet anybody."""

_PASSED_ON: Final = frozenset({b"forwarded", b"x-forwarded-for", b"origin"})
"""Headers that a request of somebody else carries; `origin` is a browser's, with every POST of a page."""

_FROM_A_PAGE: Final = frozenset({(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-site", b"same-site")})


class Page(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        status: HTTP status.
        body: All of it, or slices that are sent chunked with a turn of the loop between them.
        content_type: Of the body.
        allow: Value of `Allow`, empty: none.
    """

    status: int
    body: bytes | Iterator[bytes]
    content_type: str = TEXT
    allow: str = ""


class Query(msgspec.Struct, frozen=True):
    """A request as handlers see it.

    Attributes:
        method: `GET` for HEAD too.
        fields: The query string's fields in order, percent-decoded; bytes, since values of descriptors are bytes.
        body: At most `AdminLimits.max_body_bytes`.
    """

    method: str
    fields: tuple[tuple[str, bytes], ...]
    body: bytes


View = TypeVar("View")
"""What pages show: `AdminView`, or what the parent of workers knows of them."""

Handler = Callable[[View, Query], Awaitable[Page]]


class Route(msgspec.Struct, Generic[View], frozen=True):
    """One page.

    Attributes:
        path: Exact path.
        methods: What it takes; HEAD goes with GET.
        handler: Makes the answer.
        meaning: A few words for the index.
        guard: Name under which `--admin-expose` opens it to every peer, empty: open.
    """

    path: str
    methods: tuple[str, ...]
    handler: Handler[View]
    meaning: str
    guard: str = ""

    @property
    def allow(self) -> str:
        """The value of `Allow`."""
        return ", ".join(method for name in self.methods for method in ((name, "HEAD") if name == "GET" else (name,)))


class Routes(Generic[View]):
    """The table of pages with what is exposed."""

    def __init__(self, routes: Sequence[Route[View]], exposed: frozenset[str] = frozenset()) -> None:
        self._routes: Mapping[str, Route[View]] = {route.path: route for route in routes}
        self._exposed = exposed

    def find(self, method: str, path: str, *, is_local: bool) -> Route[View] | Page:
        """The route that answers, or the refusal: 404, 403, 405 in this order."""
        route = self._routes.get(path)
        if route is None:
            return refusal(404, "no such page; / lists them")
        if route.guard and not is_local and route.guard not in self._exposed:
            return refusal(403, f"{route.guard} answers this machine only; --admin-expose {route.guard} opens it")
        if ("GET" if method == "HEAD" else method) not in route.methods:
            return Page(405, f"{path} takes {route.allow}\n".encode(), allow=route.allow)
        return route


def refusal(status: int, message: str) -> Page:
    """A short text that says what is wrong."""
    return Page(status, f"{message}\n".encode())


def is_local_peer(peer: object, headers: Sequence[tuple[bytes, bytes]] = ()) -> bool:
    """Whether a request was made on this machine.

    A Unix socket's peer is. A loopback address is, except that of an Istio sidecar's inbound traffic (127.0.0.6),
    and except when a header says that a proxy passed the request on, or that a web page of another origin asks:
    a browser on this machine is everybody whose pages it shows.

    Args:
        peer: The transport's `peername`: (host, port, …) for TCP, text or bytes for a Unix socket.
        headers: Of the request, names in lower case.
    """
    if any(name in _PASSED_ON or (name, value) in _FROM_A_PAGE for name, value in headers):
        return False
    if isinstance(peer, str | bytes):
        return True
    if not isinstance(peer, tuple) or not peer:
        return False
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = address if mapped is None else mapped
    return address.is_loopback and address != _SIDECAR


def split_target(target: str) -> tuple[str, tuple[tuple[str, bytes], ...]]:
    """A request target as (path, fields of the query); `+` is a space in fields, broken escapes stay as they are."""
    if target.startswith(("http://", "https://")):  # absolute form, RFC 9112 §3.2.2
        target = "/" + target.split("//", 1)[1].partition("/")[2]
    path, _, query = target.partition("?")
    fields = []
    for part in filter(None, query.partition("#")[0].split("&")):
        name, _, value = part.partition("=")
        decoded = unquote_to_bytes(value.replace("+", " "))
        fields.append((unquote_to_bytes(name.replace("+", " ")).decode("utf-8", "replace"), decoded))
    return path, tuple(fields)
