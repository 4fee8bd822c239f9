"""Where an operator is asked for policies, and by whom: what `--policies xds://…` and the `--xds-…` flags become."""

from __future__ import annotations

from typing import Final

import msgspec

from ratelimit_service.addresses import Address, InvalidAddress, parse_address
from ratelimit_service.errors import TidegateError
from ratelimit_service.flags import XDS_SCHEME

XDS_TYPES: Final = ("tidegate", "envoyproxy")
"""Whose resources are asked for: our own, or envoyproxy/ratelimit's RateLimitConfig."""


class InvalidXdsAddress(TidegateError):
    """A text names no servers.

    Attributes:
        problems: Everything that is wrong with it.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class XdsAddress(msgspec.Struct, frozen=True):
    """Everything that the client needs to know.

    Attributes:
        servers: Tried in order, each with every address of its name, until one accepts.
        node: Name of this replica, not empty.
        resources: One of `XDS_TYPES`.
        ca: PEM file of the CAs of the server's certificate; empty, with `cert` empty: in the clear.
        cert: PEM file of this replica's certificate chain, together with `key`, empty: it shows none.
        key: PEM file of its private key.
        server_name: Name to expect in the server's certificate, empty: the host's.
        snapshot: Folder where the last good set is kept, empty: nowhere.
        bootstrap: Folder with a set that somebody else keeps, empty: none.
    """

    servers: tuple[Address, ...]
    node: str
    resources: str = XDS_TYPES[0]
    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    snapshot: str = ""
    bootstrap: str = ""

    @property
    def is_secure(self) -> bool:
        """Whether the stream is encrypted."""
        return bool(self.ca or self.cert)


def parse_servers(text: str) -> tuple[Address, ...]:
    """Read `xds://HOST:PORT[,HOST:PORT…]`.

    Raises:
        InvalidXdsAddress: With every problem at once.
    """
    problems: list[str] = []
    servers: list[Address] = []
    for part in text.removeprefix(XDS_SCHEME).rstrip("/").split(","):
        try:
            address = parse_address(part)
        except InvalidAddress as error:
            problems.append(str(error))
            continue
        if address.unix_path or not address.port or part.startswith(":"):
            problems.append(f"{part!r} names no server; write {XDS_SCHEME}HOST:PORT")
        servers.append(address)
    if problems:
        raise InvalidXdsAddress(problems)
    return tuple(servers)
