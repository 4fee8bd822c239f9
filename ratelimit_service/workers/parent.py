"""The parent of workers: starts them, starts again what dies, hands out connections, and ends them without a loss."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from ratelimit_service import __version__
from ratelimit_service.app import StartRefused
from ratelimit_service.clock import Clock
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.settings import ServeSettings
from ratelimit_service.sources.contract import Applied, Refused
from ratelimit_service.sources.files import FileSource
from ratelimit_service.sources.frames import Frame
from ratelimit_service.telemetry import logs
from ratelimit_service.transport.addresses import CannotListen
from ratelimit_service.transport.admin import AdminServer
from ratelimit_service.transport.admin import CannotListen as CannotListenAdmin
from ratelimit_service.transport.admin_service import Readiness
from ratelimit_service.transport.native_sockets import Listener
from ratelimit_service.workers.messages import CONNECTION, Report, decode_report
from ratelimit_service.workers.pages import Staff, StaffPages, WorkerState
from ratelimit_service.workers.policies import Policies
from ratelimit_service.workers.sending import least_loaded
from ratelimit_service.workers.worker import Worker

_US_PER_S: Final = 1_000_000
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_START_S: Final = 60.0
"""How long the first workers may take to be ready."""
_SOON_S: Final = 0.2
_LATEST_S: Final = 5.0
_GOOD_S: Final = 10.0
"""A worker that lived so long is started again at once; one that did not waits, longer each time."""
_MOST_WAITING: Final = 4_096
"""Connections that are kept while no worker is ready; one more is closed."""
_ADMIN_S: Final = 0.5


class Parent:
    """A service of several workers; the surface of `app.Service`. Made, started and ended on one event loop.

    Args:
        settings: What `serve` was told.
        flags: The same as texts, for the workers.

    Attributes:
        version: Of the program.
        snapshot: What was read last and is good; None: nothing was.

    Raises:
        StartRefused: There is no folder for the workers' sockets; raised on construction.
    """

    def __init__(self, settings: ServeSettings, flags: Mapping[str, Sequence[str]]) -> None:
        self._settings = settings
        self._flags = {flag: tuple(texts) for flag, texts in flags.items()}
        self._told = asyncio.Event()
        clock = Clock()
        logs.configure(settings.log_format, settings.log_level, sys.stderr, lambda: clock.read().boot_us)
        self._log = structlog.get_logger("tidegate")
        self.version = __version__
        self.snapshot: Snapshot | None = None
        self._policies = Policies()
        self._source = _policy_files(settings, self)
        self._workers = [Worker(number) for number in range(settings.workers)]
        self._waiting: deque[socket.socket] = deque()
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: list[asyncio.Task[None]] = []
        self._draining = self._has_started = False
        self._ending = asyncio.Event()
        self._refused: Report | None = None
        self._changed = asyncio.Event()
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="tidegate-workers-")
        except OSError as error:
            raise StartRefused("workers", [f"no folder for their sockets: {error}"]) from error
        self._pages = StaffPages(self)
        self._admin: AdminServer[Staff] = AdminServer(
            [settings.admin], self, routes=self._pages.routes(), exposed=settings.admin_expose
        )

    # From start to end.

    async def start(self) -> None:
        """Load the policies, bind every address, start the workers, and serve once all of them are ready.

        Raises:
            StartRefused: With every problem; nothing is left running.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._told.set)
        try:
            await self._load()
            await self._listen()
            for worker in self._workers:
                self._run(self._keep(worker))
            await self._until_ready()
        except BaseException:
            await self._end(grace_s=0.0)
            raise
        self._has_started = True
        for listener in self._listeners:
            self._accepting.append(asyncio.create_task(self._accept(listener)))

    async def _load(self) -> None:
        if self._source is None:
            return
        outcome = await self._source.start()
        if isinstance(outcome, Refused) and not self._settings.start_without_policies:
            raise StartRefused("policies", [str(problem) for problem in outcome.problems])

    async def _listen(self) -> None:
        problems = []
        try:
            await self._admin.start()
        except CannotListenAdmin as error:
            problems.append(str(error))
        for address in self._settings.grpc:
            try:
                self._listeners.append(Listener(str(address)))
            except CannotListen as error:
                problems.append(str(error))
        if problems:
            raise StartRefused("addresses", problems)

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(_START_S):
                while not all(self._has_begun(worker) for worker in self._workers):
                    if self._refused is not None:
                        raise StartRefused(self._refused.subject, self._refused.problems)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            late = [str(worker.number) for worker in self._workers if not self._has_begun(worker)]
            raise StartRefused("workers", [f"not ready after {_START_S:g} s: {', '.join(late)}"]) from None

    def _has_begun(self, worker: Worker) -> bool:
        """Whether it serves: by policies that are in force, unless there are none yet."""
        return worker.load.report.ready or (self.snapshot is None and worker.load.has_begun)

    async def run_until_signal(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends everything at once."""
        await self._told.wait()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        await self.drain()

    async def drain(self) -> None:
        """End without losing a call (DECISIONS 31): the workers drain, and connections are handed out until they close.

        A worker that has not ended by `--drain-grace` is killed.
        """
        settings = self._settings
        delay_s, grace_s = settings.drain_delay_us / _US_PER_S, settings.drain_grace_us / _US_PER_S
        self._draining = True
        self._log.info("draining", delay_s=delay_s, grace_s=grace_s, workers=len(self._workers))
        for worker in self._workers:
            worker.tell_to_drain()
        await asyncio.sleep(delay_s)
        await self._end(grace_s - delay_s)
        self._log.info("drained")

    async def _end(self, grace_s: float) -> None:
        self._draining = True
        self._ending.set()
        for accepting in self._accepting:
            accepting.cancel()
        for listener in self._listeners:
            listener.close()
        if self._source is not None:
            await self._source.close()
        if self._tasks and grace_s > 0:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for worker in self._workers:
            worker.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._waiting:
            connection.close()
        await self._admin.close(_ADMIN_S)
        self._folder.cleanup()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Workers.

    async def _keep(self, worker: Worker) -> None:
        """Run a worker, again and again, until the service drains or it refuses to start."""
        pause_s = 0.0
        while not self._draining:
            began_s = asyncio.get_running_loop().time()
            code = await self._run_once(worker)
            if self._draining or (self._refused is not None and not self._has_started):
                return
            lived_s = asyncio.get_running_loop().time() - began_s
            pause_s = 0.0 if lived_s >= _GOOD_S else min(_LATEST_S, max(_SOON_S, 2 * pause_s))
            self._log.error("worker ended, and is started again", worker=worker.number, status=code, pause_s=pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause_s)

    async def _run_once(self, worker: Worker) -> int:
        """Run one process of a worker to its end; return its exit status, below 0 for a signal."""
        worker.starts += 1
        admin_path = str(Path(self._folder.name) / f"{worker.number}-{worker.starts}")
        try:
            return await worker.run(
                self._flags, admin_path, self._policies.replay(), functools.partial(self._heard, worker)
            )
        finally:
            self._pages.forget(worker.number)
            for connection in worker.reclaim():
                self._give(connection)

    def _heard(self, worker: Worker, message: bytes, carried: Sequence[socket.socket]) -> None:
        for each in carried:  # none is expected
            each.close()
        try:
            report = decode_report(message)
        except msgspec.DecodeError:
            self._log.error("a worker said what cannot be read", worker=worker.number)
            return
        worker.load.take_in(report)
        if report.subject:
            self._refused = report
        self._changed.set()
        if worker.load.has_begun:
            for _ in range(len(self._waiting)):
                self._give(self._waiting.popleft())

    # Connections.

    async def _accept(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener.socket)
            except OSError as error:
                self._log.warning("a connection was not accepted", address=listener.address, problem=str(error))
                await asyncio.sleep(_SOON_S)
                continue
            if not listener.is_unix:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._give(connection)

    def _give(self, connection: socket.socket) -> None:
        """Hand a connection to a worker; while none is ready it waits."""
        loads = {worker.load: worker for worker in self._workers}
        while (load := least_loaded(loads)) is not None:
            channel = loads.pop(load).channel
            if channel is not None and channel.send(CONNECTION, connection):
                load.give(connection)
                return
        if len(self._waiting) < _MOST_WAITING and not self._draining:
            self._waiting.append(connection)
        else:
            connection.close()

    # Policies.

    def apply(self, snapshot: Snapshot) -> Applied | Refused:
        """See `Apply`; what the workers make of it is their report."""
        self.snapshot = snapshot
        return Applied(snapshot.version)

    def relay(self, frame: Frame, raw: bytes) -> None:
        """See `Relay`: pass whole sets on to every worker."""
        whole = self._policies.take_in(frame, raw)
        if whole:
            for worker in self._workers:
                worker.tell_policies(whole)

    def load_succeeded(self, applied: Applied, duration_us: int) -> None:
        """See `LoadObserver`; the workers tell what they made of it."""

    def load_failed(self, problems: Sequence[Problem], duration_us: int) -> None:
        """See `LoadObserver`; the workers tell what they made of it."""

    # What the pages show.

    @property
    def grpc_addresses(self) -> list[str]:
        """Where Envoy may ask, with real ports."""
        return [listener.address for listener in self._listeners]

    @property
    def admin_addresses(self) -> list[str]:
        """Where the admin pages are, with real ports."""
        return self._admin.addresses

    def readiness(self) -> Readiness:
        """Ready while a worker is; those that are not, and what the workers complain of, are problems."""
        late = [worker for worker in self._workers if not worker.load.report.ready]
        problems = [f"worker {worker.number} is not ready: {worker.load.report.reason}" for worker in late]
        found = dict.fromkeys(problem for worker in self._workers for problem in worker.load.report.problems)
        problems += found
        if self._draining:
            return Readiness(ready=False, reason="draining", problems=tuple(problems))
        if len(late) == len(self._workers):
            return Readiness(ready=False, reason="no worker is ready", problems=tuple(problems))
        return Readiness(ready=True, problems=tuple(problems))

    def states(self) -> list[WorkerState]:
        """Every worker, in order."""
        return [
            WorkerState(
                number=worker.number,
                pid=worker.pid,
                ready=worker.load.report.ready,
                reason=worker.load.report.reason,
                connections=worker.load.report.open,
                starts=worker.starts,
            )
            for worker in self._workers
        ]

    def sockets(self) -> list[tuple[int, str]]:
        """Number and admin socket of each worker that has begun; where some are ready, of those."""
        begun = [worker for worker in self._workers if worker.load.has_begun]
        ready = [worker for worker in begun if worker.load.report.ready]
        return [(worker.number, worker.admin_path) for worker in ready or begun]


def _policy_files(settings: ServeSettings, parent: Parent) -> FileSource | None:
    """What reads the policies for all workers; None: each follows an operator by itself."""
    if settings.xds is not None:
        return None
    return FileSource(
        [str(path) for path in settings.policies],
        parent.apply,
        CompileOptions(merge_domain_config=settings.merge_domain_config),
        parent,
        relay=parent.relay,
    )
