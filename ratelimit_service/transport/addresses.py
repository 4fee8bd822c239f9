"""Where a gRPC server listens: `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.

The operating system is asked whether an address is free before a transport binds it, so that a refusal names
the reason; grpcio only says that it failed, and it would take over the Unix socket of a live server.
"""

from __future__ import annotations

import os
import socket
import stat

from ratelimit_service.errors import TidegateError

_UNIX = "unix:"
_PROBE_TIMEOUT_S = 1.0
_MAX_PORT = 65_535


class CannotListen(TidegateError):
    """An address that cannot be bound.

    Attributes:
        address: As it was configured.
        reason: What the operating system said.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address
        self.reason = reason


def unix_path(address: str) -> str | None:
    """Return the path of a `unix:PATH` address, None for any other."""
    return address.removeprefix(_UNIX) if address.startswith(_UNIX) else None


def with_port(address: str, port: int) -> str:
    """Return `address` with the port that was really bound; a `unix:PATH` stays as it is."""
    if unix_path(address) is not None:
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def require_free(address: str) -> None:
    """Bind `address` for a moment.

    Raises:
        CannotListen: It is taken, not ours, or no address at all.
    """
    path = unix_path(address)
    try:
        if path is None:
            _bind_tcp(address)
        else:
            _require_free_path(path)
    except OSError as error:
        raise CannotListen(address, _words(error)) from error
    except ValueError as error:
        raise CannotListen(address, str(error)) from error


def _words(error: OSError) -> str:
    # `create_server` adds the address to the system's words; errors of name resolution have numbers of their own.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _bind_tcp(address: str) -> None:
    host, colon, port_text = address.rpartition(":")
    if not colon or not port_text.isdigit() or int(port_text) > _MAX_PORT:
        raise ValueError(f"an address is HOST:PORT, the port 0 to {_MAX_PORT}, or unix:PATH")
    found = socket.getaddrinfo(host.strip("[]") or None, int(port_text), type=socket.SOCK_STREAM)
    family, _, _, _, where = found[0]
    socket.create_server(where[:2], family=family).close()


def _require_free_path(path: str) -> None:
    if not path:
        raise ValueError("the path of the Unix socket is empty")
    if not os.path.isdir(os.path.dirname(path) or "."):  # noqa: PTH112, PTH120 - an abstract path must stay a string
        raise ValueError("no such folder")
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ValueError("the file exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        # A socket that nobody answers was left by a server that died; whoever binds removes it.
        if probe.connect_ex(path) == 0:
            raise ValueError("another server listens there")
