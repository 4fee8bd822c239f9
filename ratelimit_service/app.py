"""Builds the service out of its parts and walks it from start to end.

It and `assembly` are the only modules that name concrete classes.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from ratelimit_service import __version__
from ratelimit_service.assembly.sources import make_source
from ratelimit_service.assembly.store_watch import StoreWatch
from ratelimit_service.assembly.stores import Stores
from ratelimit_service.assembly.traces import TracesMissing, make_tracing
from ratelimit_service.assembly.transports import TRANSPORTS
from ratelimit_service.clock import Clock
from ratelimit_service.errors import TidegateError
from ratelimit_service.limiter.engine import Limiter
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.service_view import ServiceView
from ratelimit_service.settings import Compat, ServeSettings
from ratelimit_service.sources.contract import Applied, Apply, Refused, Source
from ratelimit_service.sources.xds.source import XdsObserver
from ratelimit_service.telemetry import logs
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.telemetry.tracing import Tracing
from ratelimit_service.transport.addresses import CannotListen
from ratelimit_service.transport.admin import AdminServer
from ratelimit_service.transport.admin import CannotListen as CannotListenAdmin
from ratelimit_service.transport.admin_pages import ROUTES
from ratelimit_service.transport.contract import Adopting, Counting
from ratelimit_service.transport.timing import TimedDecider
from ratelimit_service.transport.tls import InvalidTls
from ratelimit_service.transport.tracing import TracedDecider

_US_PER_S: Final = 1_000_000
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_RESERVE_S: Final = 0.5
"""Of the drain's grace, what is kept for closing all that is not a call."""


class StartRefused(TidegateError):
    """The service does not start.

    Attributes:
        subject: What is wrong, in a word: `policies`, `addresses`, `TLS files`.
        problems: Everything that is wrong with it.
    """

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        super().__init__(f"{subject}: " + "; ".join(problems))
        self.subject = subject
        self.problems = tuple(problems)


_TRACE_LOOKS: Final = 40
_TRACE_LOOK_S: Final = 0.05
"""How often, and after what pause, it is looked whether the last traces are sent: 2 s in all."""

MakeSource = Callable[[Apply, XdsObserver], Source]
"""From who puts sets in force, and who is told of them."""


class Service:
    """One running service. Made, started and ended on one event loop.

    Attributes:
        view: What its admin pages show.
        told: Set by the first SIGTERM or SIGINT.

    Raises:
        StartRefused: The TLS files are not good, or what traces need is not installed; raised on construction.
    """

    def __init__(self, settings: ServeSettings, *, source: MakeSource | None = None, worker: int | None = None) -> None:
        """Build it; nothing runs yet.

        Args:
            settings: What `serve` was told.
            source: Makes what brings the policies; None: the files that `--policies` names.
            worker: Its number among the workers, which is in every line of its log; None: it is no worker.
        """
        self._settings = settings
        self.told = asyncio.Event()
        clock = Clock()
        logs.configure(settings.log_format, settings.log_level, sys.stderr, lambda: clock.read().boot_us)
        if worker is not None:
            structlog.contextvars.bind_contextvars(worker=worker)
        self._log = structlog.get_logger("tidegate")
        version = __version__
        metrics = Metrics(version, settings.metrics_max_series)
        try:
            self._tracing = make_tracing(settings, version)
        except TracesMissing as error:
            raise StartRefused("traces", [str(error)]) from error
        self._stores = Stores(settings, clock, metrics, self._tracing)
        limiter = Limiter(self._stores.by_profile, _limiter_settings(settings), metrics.counters)
        decider = TimedDecider(limiter, metrics.request_duration)
        self.view = ServiceView(
            version=version,
            limiter=limiter,
            decider=decider,
            stores=self._stores.by_profile,
            health=self._stores.health,
            metrics=metrics,
            clock=clock.read,
            deadline_us=settings.deadline_us,
            waits_for_policies=settings.start_without_policies or settings.xds is not None,
        )
        metrics.bound = self.view.bound
        self._store_watch = StoreWatch(self._stores.health, self._log)
        self._watching: asyncio.Task[None] | None = None
        make = functools.partial(make_source, settings) if source is None else source
        self._source = make(self._apply, self.view)
        self._admin = AdminServer([settings.admin], self.view, routes=ROUTES, exposed=settings.admin_expose)
        try:
            self._transport = TRANSPORTS[settings.transport](
                limiter if self._tracing is None else TracedDecider(limiter, self._tracing),
                clock.read,
                settings,
                metrics.request_duration,
                self._tracing,
            )
        except InvalidTls as error:
            raise StartRefused("TLS files", [str(error)]) from error
        if isinstance(self._transport, Counting):
            metrics.connections = self._transport.stats

    async def start(self) -> None:
        """Load the policies, bind every address and serve; from now on signals are `run_until_signal`'s.

        Raises:
            StartRefused: With every problem; nothing is left running.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.told.set)
        await self._stores.start()
        self._watching = loop.create_task(self._store_watch.run())
        try:
            await self._load()
            await self._listen()
        except BaseException:
            await self._close(grace_s=0)
            raise
        self._transport.set_serving(self.view.readiness().ready)

    async def _load(self) -> None:
        # An operator that is away is no reason to end: the service waits for it, unready.
        outcome = await self._source.start()
        if isinstance(outcome, Refused) and not self._settings.start_without_policies:
            raise StartRefused("policies", [str(problem) for problem in outcome.problems])

    async def _listen(self) -> None:
        problems = []
        try:
            await self._admin.start()
        except CannotListenAdmin as error:
            problems.append(str(error))
        try:
            await self._transport.start()
        except CannotListen as error:
            problems.append(str(error))
        if problems:
            raise StartRefused("addresses", problems)

    def _apply(self, snapshot: Snapshot) -> Applied | Refused:
        if problems := self._stores.follow(snapshot):
            return Refused(tuple(problems))
        outcome = self.view.apply(snapshot)
        self._transport.set_serving(self.view.readiness().ready)
        return outcome

    @property
    def version(self) -> str:
        """Version of the program."""
        return self.view.version

    @property
    def snapshot(self) -> Snapshot | None:
        """What is in force, None while there is nothing."""
        return self.view.snapshot()

    @property
    def grpc_addresses(self) -> list[str]:
        """Where Envoy may ask, with real ports."""
        return self._transport.addresses

    @property
    def admin_addresses(self) -> list[str]:
        """Where the admin pages are, with real ports."""
        return self._admin.addresses

    async def run_until_signal(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once, by that signal."""
        await self.told.wait()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        await self.drain()

    async def adopt(self, accepted: socket.socket) -> None:
        """Serve a connection that another process has accepted."""
        assert isinstance(self._transport, Adopting)
        await self._transport.adopt(accepted)

    def on_connections(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a connection has come or gone."""
        assert isinstance(self._transport, Adopting)
        self._transport.on_change(changed)

    @property
    def connections(self) -> int:
        """Connections of callers that are open."""
        assert isinstance(self._transport, Adopting)
        return self._transport.connections

    async def drain(self, *, delays: bool = True) -> None:
        """End without losing a call (DECISIONS 31).

        Health says NOT_SERVING at once, and calls are answered for `--drain-delay` more, so that Envoy goes elsewhere
        first. Then no call is taken, and those under way finish, by `--drain-grace` from the start at the latest.

        Args:
            delays: False: nobody can go elsewhere first, so there is nothing to wait for.
        """
        settings = self._settings
        self.view.draining = True
        self._transport.set_serving(False)
        delay_s, grace_s = settings.drain_delay_us / _US_PER_S * delays, settings.drain_grace_us / _US_PER_S
        self._log.info("draining", delay_s=delay_s, grace_s=grace_s)
        await asyncio.sleep(delay_s)
        await self._close(grace_s - delay_s)
        self._log.info("drained")

    async def _close(self, grace_s: float) -> None:
        calls_s = max(0.0, grace_s - _RESERVE_S)
        await asyncio.gather(self._transport.drain(calls_s), self._source.close())
        await self._admin.close(min(grace_s, _RESERVE_S))
        if self._watching is not None:
            self._watching.cancel()
        await self._stores.close()
        if self._tracing is not None:
            await _close_traces(self._tracing)


async def _close_traces(tracing: Tracing) -> None:
    """Send what is left, for a moment: the collector may be away, and its client waits longer than anybody wants to."""
    # A thread that nobody has to wait for, as the loop's own would be.
    sending = threading.Thread(target=tracing.close, daemon=True)
    sending.start()
    for _ in range(_TRACE_LOOKS):
        if not sending.is_alive():
            return
        await asyncio.sleep(_TRACE_LOOK_S)


def _limiter_settings(settings: ServeSettings) -> LimiterSettings:
    return LimiterSettings(
        compat=settings.compat is Compat.ENVOYPROXY,
        store_errors=settings.compat is Compat.ENVOYPROXY and settings.store is not None,
        shadow_mode=settings.shadow_mode,
        quota_mode=settings.quota_mode,
        response_headers=settings.response_headers,
        response_dynamic_metadata=settings.response_dynamic_metadata,
        near_limit_ratio=settings.near_limit_ratio,
    )
