"""Messages and open sockets between the parent and a worker, on an event loop.

A Unix socket of type SEQPACKET: messages stay apart, come in order, and the end of the other process is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Final

_MESSAGE_BYTES: Final = 65_536
_MOST_SOCKETS: Final = 1
_BATCH: Final = 64
"""Messages that are read before others have their turn."""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends, non-blocking, not inherited unless that is asked for."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.setblocking(False)
    other.setblocking(False)
    return one, other


class Channel:
    """One end, which it owns. Made and used on one event loop.

    Args:
        end: Of `channel_pair`.
        on_message: Takes each message and the sockets that came with it, which are then its own.
        on_end: Called once, when the other side is gone.
    """

    def __init__(
        self,
        end: socket.socket,
        on_message: Callable[[bytes, Sequence[socket.socket]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._socket = end
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        self._loop.add_reader(end.fileno(), self._read)

    def send(self, message: bytes, carried: socket.socket | None = None) -> bool:
        """Send a message, and a copy of a socket with it; False: the other side is gone, or does not read."""
        if not self._is_open:
            return False
        try:
            if carried is None:
                self._socket.send(message)
            else:
                socket.send_fds(self._socket, [message], [carried.fileno()])
        except OSError:  # full, or broken: then `_read` learns of it
            return False
        return True

    def close(self) -> None:
        """Close this end; `on_end` is not called."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _read(self) -> None:
        for _ in range(_BATCH):
            if not self._is_open:
                return
            try:
                message, numbers, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, _MOST_SOCKETS)
            except BlockingIOError:
                return
            except OSError:
                message, numbers = b"", []
            carried = [socket.socket(fileno=number) for number in numbers]
            if not message:
                for each in carried:
                    with contextlib.suppress(OSError):
                        each.close()
                self.close()
                self._on_end()
                return
            self._on_message(message, carried)
