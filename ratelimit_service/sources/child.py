"""A process of our own that finds policies and compiles them, seen from the one that serves.

On both pipes a message is its length (4 bytes, big-endian) and its content. The child ends when its input does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from ratelimit_service.errors import TidegateError
from ratelimit_service.sources.frames import HEADER_BYTES, MAX_FRAME_BYTES

_CLOSE_S: Final = 2.0


class ChildFailed(TidegateError):
    """The process ended, or what it sends makes no sense."""


class Child:
    """One running process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._input = process.stdin
        self._output = process.stdout

    @classmethod
    async def start(cls, module: str) -> Child:
        """Run a module of this package; raises OSError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # The child must find this very package, wherever it was imported from.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return cls(process)

    def send(self, message: bytes) -> None:
        """Send a message, its length included; what a child that is gone does not read is told by `read`."""
        self._input.write(message)

    async def read(self) -> bytes:
        """The content of the next message.

        Raises:
            ChildFailed: There will be none.
        """
        try:
            size_bytes = int.from_bytes(await self._output.readexactly(HEADER_BYTES), "big")
            if size_bytes > MAX_FRAME_BYTES:
                raise ChildFailed(f"a message of {size_bytes} bytes")
            return await self._output.readexactly(size_bytes)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ChildFailed(f"it ended with status {await self._process.wait()}") from error

    async def stop(self) -> None:
        """End it: kindly by closing its input, else by force."""
        self._input.close()
        try:
            await asyncio.wait_for(self._process.wait(), _CLOSE_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
