"""Where servers listen, as people write it on a command line."""

from __future__ import annotations

from typing import Final

import msgspec

from ratelimit_service.errors import TidegateError

_MAX_PORT: Final = 65_535
_MAX_PORT_DIGITS: Final = 5


class InvalidAddress(TidegateError):
    """A text is no address; the message names it and says what would be right."""


class Address(msgspec.Struct, frozen=True):
    """Where a server listens: either a host with a port, or the path of a Unix socket.

    Attributes:
        host: Name or IP address without brackets; empty for a Unix socket.
        port: 0 to 65535; 0 lets the system choose.
        unix_path: Path of the socket; empty for TCP.
    """

    host: str = ""
    port: int = 0
    unix_path: str = ""

    def __str__(self) -> str:
        if self.unix_path:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `HOST:PORT`, `[IPV6]:PORT`, `:PORT` (every interface) or `unix:PATH`.

    Raises:
        InvalidAddress: It is no such address.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise InvalidAddress(f"{text!r} names no socket; write unix:PATH")
        return Address(unix_path=path)
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    is_port = port.isascii() and port.isdigit() and len(port) <= _MAX_PORT_DIGITS and int(port) <= _MAX_PORT
    if not colon or not is_port or (":" in host) != bracketed:
        raise InvalidAddress(f"{text!r} is not an address; write HOST:PORT, [IPV6]:PORT or unix:PATH")
    return Address(host=host.strip("[]") or "0.0.0.0", port=int(port))  # noqa: S104 — `:PORT` asks for every interface
