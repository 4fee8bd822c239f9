"""A worker's process: `python -m ratelimit_service.workers.child CHANNEL STREAM`, two inherited sockets.

It serves what the parent hands it, by the policies that the parent sends, and ends when it is told to, on SIGTERM, or
when the parent is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import msgspec
import uvloop

from ratelimit_service.addresses import Address
from ratelimit_service.app import MakeSource, Service, StartRefused
from ratelimit_service.assembly.transports import TRANSPORTS
from ratelimit_service.settings import ServeSettings, decode_settings
from ratelimit_service.sources.child import ChildFailed
from ratelimit_service.sources.contract import Applied, Apply, LoadObserver, Refused
from ratelimit_service.sources.frames import HEADER_BYTES
from ratelimit_service.sources.streamed import StreamedSource
from ratelimit_service.workers.channel import Channel
from ratelimit_service.workers.messages import CONNECTION, DRAIN, Order, Report, encode_report, read_order
from ratelimit_service.xds_address import XdsAddress

EXIT_REFUSED: Final = 2
"""Exit code of a worker that does not start; it has reported why."""

_AGAIN_S: Final = 0.05
_REPORT_S: Final = 1.0


class ParentSource(StreamedSource):
    """Policies that the parent read."""

    def __init__(self, reader: asyncio.StreamReader, apply: Apply, observer: LoadObserver) -> None:
        super().__init__(apply, observer)
        self._reader = reader
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Applied | Refused:
        """Begin to take sets; returns what became of the first."""
        self._task = asyncio.create_task(self._run(), name="policies of the parent")
        return await self.first()

    async def read(self) -> bytes:
        """See `Sender.read`."""
        try:
            size_bytes = int.from_bytes(await self._reader.readexactly(HEADER_BYTES), "big")
            return await self._reader.readexactly(size_bytes)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ChildFailed("the parent is gone") from error

    async def close(self) -> None:
        """Take no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                await self.take_set(self)
        except (ChildFailed, msgspec.MsgspecError):
            # The parent is gone; the channel tells that too, and what follows from it.
            return


class Worker:
    """Ties a service to its parent."""

    def __init__(self, channel: socket.socket, service: Service) -> None:
        """Serve what comes over `channel`."""
        self._service = service
        self._adopted = 0
        self._said: Report | None = None
        self._ended = asyncio.Event()
        self._is_orphan = False
        self._adopting: set[asyncio.Task[None]] = set()
        self._channel = Channel(channel, self._take, self._orphaned)
        self._timer: asyncio.TimerHandle | None = None
        service.on_connections(self.report)

    async def run(self) -> None:
        """Serve until told to end, and drain."""
        self._tick()
        told = asyncio.create_task(self._service.told.wait())
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait([told, ended], return_when=asyncio.FIRST_COMPLETED)
        for task in (told, ended):
            task.cancel()
        draining = asyncio.create_task(self._service.drain(delays=not self._is_orphan))
        self.report()
        await draining
        if self._timer is not None:
            self._timer.cancel()
        self._channel.close()

    def report(self) -> None:
        """Say how the worker is, if that is news."""
        state = self._service.view.readiness()
        report = Report(
            adopted=self._adopted,
            open=self._service.connections,
            ready=state.ready,
            reason=state.reason,
            problems=state.problems,
        )
        if report != self._said:
            if self._channel.send(encode_report(report)):
                self._said = report
            else:
                asyncio.get_running_loop().call_later(_AGAIN_S, self.report)

    def _tick(self) -> None:
        """Readiness changes by many ways; a look once a second finds what no callback told."""
        self.report()
        self._timer = asyncio.get_running_loop().call_later(_REPORT_S, self._tick)

    def _take(self, message: bytes, carried: Sequence[socket.socket]) -> None:
        if message == CONNECTION:
            for connection in carried:
                task = asyncio.create_task(self._adopt(connection))
                self._adopting.add(task)
                task.add_done_callback(self._adopting.discard)
        elif message == DRAIN:
            self._ended.set()

    async def _adopt(self, connection: socket.socket) -> None:
        # Before the TLS handshake: from here on the connection is this worker's.
        self._adopted += 1
        self.report()
        await self._service.adopt(connection)
        self.report()

    def _orphaned(self) -> None:
        self._is_orphan = True
        if self._ended.is_set():
            # It was told to end by a parent that has ended at once: a second signal.
            os._exit(EXIT_REFUSED)
        self._ended.set()


def settings_of(order: Order) -> ServeSettings:
    """The settings of a worker: it listens nowhere but for its own admin pages."""
    settings = decode_settings(order.flags, TRANSPORTS)
    warm_file = settings.warm_file
    if warm_file is not None:
        warm_file = warm_file.with_name(f"{warm_file.name}.{order.number}")
    xds = None if settings.xds is None else _xds_of(settings.xds, order.number)
    admin = Address(unix_path=order.admin_path)
    return msgspec.structs.replace(settings, grpc=(), admin=admin, xds=xds, warm_file=warm_file)


def _xds_of(address: XdsAddress, number: int) -> XdsAddress:
    """Of an operator each worker is a replica with a name, and a file, of its own."""
    snapshot = f"{address.snapshot}.{number}" if address.snapshot else ""
    return msgspec.structs.replace(address, node=f"{address.node}/{number}", snapshot=snapshot)


async def _run(channel: socket.socket, stream: socket.socket) -> int:
    reader, writer = await asyncio.open_unix_connection(sock=stream)
    order = await read_order(reader)
    try:
        settings = settings_of(order)
        by_parent: MakeSource = lambda apply, observer: ParentSource(reader, apply, observer)  # noqa: E731
        service = Service(settings, source=by_parent if settings.xds is None else None, worker=order.number)
        await service.start()
    except StartRefused as refused:
        channel.send(encode_report(Report(reason="refused", problems=refused.problems, subject=refused.subject)))
        return EXIT_REFUSED
    # Ctrl-C reaches the whole process group; the parent decides when this process ends.
    asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    await Worker(channel, service).run()
    writer.close()
    return 0


def main() -> None:
    """Entry of the process."""
    channel, stream = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    channel.setblocking(False)
    # Until the service takes the signals over: the parent ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(uvloop.run(_run(channel, stream)))


if __name__ == "__main__":
    main()
