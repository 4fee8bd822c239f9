"""Listening sockets of the native transport."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Final

from ratelimit_service.transport.addresses import CannotListen, require_free, unix_path, with_port

BACKLOG: Final = 4_096
"""Connections that wait to be taken; the system may allow fewer. Given to the loop too, which listens anew."""
_ANY_V6: Final = "::"


class Listener:
    """One bound, listening socket.

    Attributes:
        address: As configured, with the real port.
        is_unix: It is a Unix socket.

    Raises:
        CannotListen: Names the address and the reason; raised on construction.
    """

    def __init__(self, address: str) -> None:
        require_free(address)
        path = unix_path(address)
        self.is_unix = path is not None
        self._path = None if path is None else Path(path)
        self._inode = 0
        try:
            self.socket = _tcp(address) if path is None else self._unix(path)
        except OSError as error:
            raise CannotListen(address, error.strerror or str(error)) from error
        self.socket.setblocking(False)
        self.address = address if self.is_unix else with_port(address, self.socket.getsockname()[1])

    def close(self) -> None:
        """Stop listening; the file of a Unix socket is removed if it is still ours."""
        self.socket.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()

    def _unix(self, path: str) -> socket.socket:
        # Left by a server that died: a live one was refused above.
        Path(path).unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX)
        try:
            bound.bind(path)
            bound.listen(BACKLOG)
            self._inode = Path(path).stat().st_ino
        except OSError:
            bound.close()
            raise
        return bound


def _tcp(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family, _, _, _, where = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM)[0]
    both = host == _ANY_V6 and socket.has_dualstack_ipv6()
    return socket.create_server(where[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
