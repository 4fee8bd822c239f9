"""A TCP proxy in front of a server that cuts, delays or holds what passes, one way or both."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Final, Self

_CHUNK_BYTES: Final = 65_536
_PORT: Final = re.compile(rb"(?<=[:\n ])[0-9]{5}(?=[\r ])")
"""A port in what Redis says: a number of its own, a word, or behind a host."""


class Way(enum.Enum):
    """Which direction a fault is in."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


BOTH: Final = (Way.TO_SERVER, Way.TO_CLIENT)


class FaultProxy:
    """Forwards `127.0.0.1:port` to a server. Faults hold for open connections and for new ones, until `heal`.

    `cut` loses what passes, as a link without a route does; `hold` keeps it until `heal`; `delay_seconds` puts every
    chunk off; `drop_connections` resets what is open; `refuse` resets new ones too.
    """

    def __init__(self, server_port: int, stand_ins: Mapping[int, int] = MappingProxyType({})) -> None:
        """Stand before a server; `stand_ins`: ports to tell, in what it says, instead of others, both of 5 digits."""
        self._server_port = server_port
        self._stand_ins = stand_ins
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut: set[Way] = set()
        self._flowing = {way: asyncio.Event() for way in Way}
        self._refusing = False
        self.delay_seconds = 0.0
        self.port = 0
        for event in self._flowing.values():
            event.set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        # Whoever was accepted in this very turn begins, and is ended with the others.
        await asyncio.sleep(0)
        self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    def cut(self, *ways: Way) -> None:
        """Lose what passes; both ways unless told which."""
        self._cut.update(ways or BOTH)

    def hold(self, *ways: Way) -> None:
        """Keep what passes until `heal`; both ways unless told which."""
        for way in ways or BOTH:
            self._flowing[way].clear()

    def refuse(self) -> None:
        """Reset every connection, open or new."""
        self._refusing = True
        self.drop_connections()

    def drop_connections(self) -> None:
        """Reset what is open."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def heal(self) -> None:
        """End every fault. What was cut stays lost, so connections that lost something are reset."""
        if self._cut:
            self.drop_connections()
        self._cut.clear()
        self._refusing = False
        self.delay_seconds = 0.0
        for event in self._flowing.values():
            event.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            if not self._refusing:
                await self._forward(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either side ends."""
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            return
        self._writers.add(server_writer)
        pumps = (
            asyncio.ensure_future(self._pump(reader, server_writer, Way.TO_SERVER)),
            asyncio.ensure_future(self._pump(server_reader, writer, Way.TO_CLIENT)),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server_writer.transport.abort()
            self._writers.discard(server_writer)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._flowing[way].wait()
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if way not in self._cut:
                    writer.write(self._told(chunk) if self._stand_ins and way is Way.TO_CLIENT else chunk)
                    await writer.drain()

    def _told(self, chunk: bytes) -> bytes:
        """A server's words with the ports of those that stand in; as long as before."""
        return _PORT.sub(lambda port: b"%d" % self._stand_ins.get(int(port[0]), int(port[0])), chunk)
