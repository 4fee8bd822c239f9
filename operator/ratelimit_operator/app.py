"""The operator as one process: the only module that names concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from ratelimit_operator.admin import AdminServer, Page
from ratelimit_operator.cluster.access import Access
from ratelimit_operator.cluster.api_server import ApiServer
from ratelimit_operator.flags import Options
from ratelimit_operator.handlers.control import Control
from ratelimit_operator.handlers.watching import Watcher
from ratelimit_operator.metrics import render_metrics
from ratelimit_operator.xds.credentials import ServerTls
from ratelimit_operator.xds.server import XdsServer, XdsSettings

_STOP_S: Final = 10.0
_LAG_S: Final = 5.0
_BEAT_S: Final = 0.5


class Operator:
    """One replica of the operator.

    Args:
        options: What it was told.

    Raises:
        NoAccess: There is no API server to talk to.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._log = structlog.get_logger("tidegate.operator")
        self._access = Access(options.kubeconfig)
        self._beat_s = time.monotonic()

    async def run(self, ready: Callable[[str, str], None]) -> None:
        """Run until SIGTERM or SIGINT, or until something fails that cannot be got over.

        Args:
            ready: Called once with the addresses of xDS and admin.

        Raises:
            CannotListen: The address of xDS cannot be bound.
            OSError: That of admin cannot be.
        """
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        self.api = ApiServer(self._access)
        self.xds = XdsServer(_xds_settings(self._options), on_change=self._replicas_changed)
        self.control = Control(self._options, self.api, self.xds)
        pages = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}
        admin = AdminServer(self._options.admin, pages)
        self.watcher = Watcher(
            self._access,
            self.control.observation.watched(),
            *self._on_loop(loop, self.control.seen, self.control.restarted),
        )
        try:
            await self.xds.start()
            await admin.start()
            ready(self.xds.address, admin.address)
            await self._run_until(stopping)
        finally:
            await self._stop(admin)

    def _replicas_changed(self) -> None:
        self.control.replicas_changed()

    async def _run_until(self, stopping: asyncio.Event) -> None:
        tasks = {
            asyncio.create_task(self.control.run()),
            asyncio.create_task(self._beat()),
            asyncio.create_task(stopping.wait()),
        }
        watching = asyncio.create_task(self._watch())
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, *pending):
            task.cancel()
        await asyncio.gather(watching, *pending, return_exceptions=True)
        for task in done:
            task.result()

    async def _stop(self, admin: AdminServer) -> None:
        """Streams go elsewhere, the lease is free at once: another operator takes over within its retry period."""
        self._log.info("stopping")
        await self.xds.stop()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.control.lease.release(), _STOP_S)
        await admin.stop()
        await asyncio.to_thread(self.watcher.stop)
        self.api.close()

    @staticmethod
    def _on_loop(
        loop: asyncio.AbstractEventLoop,
        seen: Callable[[str, str | None, Mapping[str, Any]], None],
        restarted: Callable[[], None],
    ) -> tuple[Callable[[str, str | None, Mapping[str, Any]], None], Callable[[], None]]:
        """The two calls of the watcher's thread, carried over to the control loop."""

        def carry(call: Callable[..., None], *arguments: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody wants to know any more
                loop.call_soon_threadsafe(call, *arguments)

        return (lambda plural, event, body: carry(seen, plural, event, body)), (lambda: carry(restarted))

    async def _watch(self) -> None:
        """Begin to watch when the first set is out: until then lists tell everything, and each start asks for one."""
        await self.control.compiled.wait()
        self.watcher.start()

    async def _beat(self) -> None:
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(_BEAT_S)

    def _livez(self) -> Page:
        """Alive: the loop turns, and the watcher's thread lives."""
        lag_s = time.monotonic() - self._beat_s - _BEAT_S
        if lag_s > _LAG_S:
            return Page("503 Service Unavailable", f"the loop lags {lag_s:.1f} s behind\n")
        if not self.watcher.is_alive:
            return Page("503 Service Unavailable", "the watcher's thread has ended\n")
        return Page("200 OK", "ok\n")

    def _readyz(self) -> Page:
        """Ready: everything was listed and compiled, and no other release writes the same objects."""
        problem = self.control.held or self.control.overlap()
        if problem:
            return Page("503 Service Unavailable", f"{problem}\n")
        return Page("200 OK", "ok\n")

    def _metrics(self) -> Page:
        return Page("200 OK", render_metrics(self), "text/plain; version=0.0.4; charset=utf-8")


def _xds_settings(options: Options) -> XdsSettings:
    tls = None
    if options.xds_tls_cert is not None and options.xds_tls_key is not None and options.xds_client_ca is not None:
        tls = ServerTls(options.xds_tls_cert, options.xds_tls_key, options.xds_client_ca, options.xds_client_sans)
    return XdsSettings(address=str(options.xds), tls=tls, canary=options.xds_canary)
