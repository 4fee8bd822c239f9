"""Connections that say hello over HTTP/2 and then nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from ratelimit_service.wire.http2.frames import PREFACE

EMPTY_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS_ACK = bytes((0, 0, 0, 4, 1, 0, 0, 0, 0))


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many, each past its hello: it has sent SETTINGS and taken the server's.

    Every tenth and the last are waited for, so that a listening queue of a hundred is not overrun. None is read twice:
    the server's SETTINGS and its ACK may come together, and then there is nothing left to wait for.
    """
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            connection.sendall(PREFACE + EMPTY_SETTINGS + SETTINGS_ACK)
            if len(opened) % 10 == 9 or len(opened) == count - 1:
                connection.recv(4_096)
            opened.append(connection)
        yield opened
