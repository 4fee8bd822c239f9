"""One worker as its parent sees it, and the process that it is just now."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from ratelimit_service.workers.channel import Channel, channel_pair
from ratelimit_service.workers.messages import DRAIN, Order, encode_order
from ratelimit_service.workers.sending import Load

Heard = Callable[[bytes, Sequence[socket.socket]], None]
"""Takes a message of the worker, and sockets that came with it."""


class Worker:
    """A number that is one process after another.

    Attributes:
        number: From 0.
        load: What it has to do, by its own reports and by what it was handed since.
        pid: Of its process; 0: there is none.
        starts: How often it was started.
        admin_path: The socket of its pages.
        channel: To it, for connections; None: there is no process.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.load = Load()
        self.pid = self.starts = 0
        self.admin_path = ""
        self.channel: Channel | None = None
        self._stream: asyncio.StreamWriter | None = None

    async def run(self, flags: dict[str, tuple[str, ...]], admin_path: str, begin: bytes, heard: Heard) -> int:
        """Run one process to its end; return its exit status, below 0 for a signal.

        Args:
            flags: What `serve` was told.
            admin_path: Where it is to show its pages.
            begin: The policies that are in force.
            heard: Takes its reports.
        """
        self.admin_path = admin_path
        self.load = Load()
        own, its = channel_pair()
        own_stream, its_stream = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ratelimit_service.workers.child",
                str(its.fileno()),
                str(its_stream.fileno()),
                pass_fds=(its.fileno(), its_stream.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                # The child must find this very package, wherever it was imported from.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        finally:
            its.close()
            its_stream.close()
        self.pid = process.pid
        self.channel = Channel(own, heard, lambda: None)
        own_stream.setblocking(False)
        _, self._stream = await asyncio.open_unix_connection(sock=own_stream)
        self._stream.write(encode_order(Order(self.number, flags, admin_path)))
        self._stream.write(begin)
        try:
            return await process.wait()
        finally:
            self.pid = 0
            self.channel.close()
            self.channel = None
            self._stream.close()
            self._stream = None

    def tell_policies(self, frames: bytes) -> None:
        """Pass a whole set on; one that has no process begins with it."""
        if self._stream is not None:
            self._stream.write(frames)

    def tell_to_drain(self) -> None:
        """Ask it to end without losing a call."""
        if self.channel is not None:
            self.channel.send(DRAIN)

    def kill(self) -> None:
        """End its process at once, if there is one."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def reclaim(self) -> Sequence[socket.socket]:
        """Take back connections that it was handed and did not say that it took."""
        left, self.load = self.load.reclaim(), Load()
        return left
