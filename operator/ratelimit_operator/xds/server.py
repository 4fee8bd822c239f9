"""The ADS server: `Distributor` on grpc.aio.

It belongs to one event loop. Streams are answered only while this process holds the lease (`serve`); otherwise they end
at once with UNAVAILABLE, and clients go on to the next address (DECISIONS 43).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc
import grpc.aio
import msgspec
import structlog

from ratelimit_operator.plan.distribution import Distribution, ResourceId
from ratelimit_operator.xds.credentials import ServerTls, carries_name, server_credentials
from ratelimit_operator.xds.distributor import Distributor, NodeState, ProtocolError, Stats
from ratelimit_operator.xds.upstream_forms import UpstreamForms
from ratelimit_service.errors import TidegateError
from ratelimit_service.wire.protobuf import MalformedMessage
from ratelimit_service.wire.xds.discovery import METHOD, decode_request
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE

MAX_REQUEST_BYTES: Final = 1024 * 1024
"""Longest request that is read: a refusal of `MAX_REFUSALS` resources."""

_SWEEP_S: Final = 1.0
_Context = Any  # grpc.aio.ServicerContext; grpcio ships no types


class CannotListen(TidegateError):
    """The address cannot be bound."""


class XdsSettings(msgspec.Struct, frozen=True):
    """How to serve.

    Attributes:
        address: HOST:PORT; port 0: any free one.
        tls: Files of mTLS; None: in the clear, for tests and trials.
        max_streams: Streams at a time; more are refused with RESOURCE_EXHAUSTED.
        answer_s: A client that leaves a response unanswered for so long is cut off.
        keepalive_s: Pause of a connection after which it is probed.
        max_connection_age_s: Age at which a client is asked to connect anew, so that an expired certificate does not
            stay in use; gRPC varies it by a tenth.
        grace_s: How long streams may take to end when the server stops.
        canary: Give what is new to one replica first.
    """

    address: str = "0.0.0.0:18002"
    tls: ServerTls | None = None
    max_streams: int = 1_000
    answer_s: float = 60.0
    keepalive_s: float = 20.0
    max_connection_age_s: float = 43_200.0
    grace_s: float = 2.0
    canary: bool = False


class XdsServer:
    """Serves one release's resources. Made, started and stopped on one event loop.

    Args:
        settings: How to serve.
        on_change: Called on the loop, at most once per turn of it, after `acked`, `nodes` or `quarantined` changed.
        clock: Seconds, monotonic.

    Raises:
        InvalidTlsFiles: On construction.
    """

    def __init__(
        self,
        settings: XdsSettings,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._on_change = on_change
        self._clock = clock
        self._log = structlog.get_logger("tidegate.xds")
        self._distributor = Distributor(canary=settings.canary)
        self._upstream = UpstreamForms()
        self._upstream_task: asyncio.Task[None] | None = None
        self._credentials = None if settings.tls is None else server_credentials(settings.tls, self._bad_files)
        self._server: Any = None
        self._sweeper: asyncio.Task[None] | None = None
        self._serving = False
        self._stopping = "the server stops"
        self._numbers = 0
        self._wakes: dict[int, asyncio.Event] = {}
        self._ends: dict[int, tuple[grpc.StatusCode, str]] = {}
        self._told_changes = 0
        self._telling = False
        self.address = ""

    # Its life.

    async def start(self) -> None:
        """Bind the address; streams are refused until `serve(True)`.

        Raises:
            CannotListen: Nothing is left running.
        """
        settings = self._settings
        options = [
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1_000)),
            ("grpc.keepalive_timeout_ms", int(settings.keepalive_s * 1_000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1_000)),
            ("grpc.max_connection_age_grace_ms", 1_000),
            ("grpc.max_concurrent_streams", settings.max_streams + 1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=options)
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        service, _, method = METHOD.removeprefix("/").partition("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(settings.address)
            else:
                port = self._server.add_secure_port(settings.address, self._credentials)
        except RuntimeError as error:
            raise CannotListen(f"{settings.address}: {error}") from error
        self.address = f"{settings.address.rpartition(':')[0]}:{port}"
        await self._server.start()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def serve(self, serving: bool) -> None:
        """Begin to answer streams, or end those that there are and refuse new ones: the lease came or went."""
        self._serving = serving
        if not serving:
            self._end_all("this operator does not hold the lease")

    async def stop(self) -> None:
        """Tell every stream to connect elsewhere, and end."""
        self._serving = False
        self._end_all(self._stopping)
        for task in (self._sweeper, self._upstream_task):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self._server is not None:
            await self._server.stop(self._settings.grace_s)

    # What the operator says and asks: see `Distributor`.

    def publish(self, distribution: Distribution, *, confirmed: bool = False) -> bool:
        """See `Distributor.publish`."""
        taken = self._distributor.publish(distribution, self._clock(), confirmed=confirmed)
        if not taken:
            self._log.warning("set held back", reason=self._distributor.held)
        self._refresh_upstream()
        self._after()
        return taken

    def seed(self, distribution: Distribution) -> None:
        """See `Distributor.seed`."""
        self._distributor.seed(distribution)

    def expect(self, nodes: Iterable[str]) -> None:
        """See `Distributor.expect`."""
        self._distributor.expect(nodes)
        self._after()

    def acked(self) -> Mapping[ResourceId, int]:
        """See `Distributor.acked`."""
        return self._distributor.acked()

    def acked_of(self, identity: ResourceId) -> int:
        """See `Distributor.acked_of`."""
        return self._distributor.acked_of(identity)

    def nodes(self) -> Mapping[str, NodeState]:
        """See `Distributor.nodes`."""
        return self._distributor.nodes()

    def quarantined(self) -> Mapping[ResourceId, str]:
        """See `Distributor.quarantined`."""
        return self._distributor.quarantined()

    @property
    def held(self) -> str:
        """See `Distributor`."""
        return self._distributor.held

    @property
    def published(self) -> Distribution | None:
        """See `Distributor`."""
        return self._distributor.published

    @property
    def stats(self) -> Stats:
        """See `Distributor`."""
        return self._distributor.stats

    @property
    def propagation_s(self) -> float | None:
        """See `Distributor`."""
        return self._distributor.propagation_s

    # Streams.

    async def _stream(self, requests: _Context, context: _Context) -> None:
        """One call of StreamAggregatedResources, from begin to end."""
        await self._admit(context)
        self._numbers += 1
        number = self._numbers
        wake = self._wakes[number] = asyncio.Event()
        self._distributor.open(number)
        reading = asyncio.get_running_loop().create_task(self._read(number, requests))
        try:
            # At once, so that the client knows that it is taken here.
            await context.send_initial_metadata(())
            while number not in self._ends:
                encoded = self._distributor.next_response(number, self._clock())
                if encoded is None:
                    await wake.wait()
                    wake.clear()
                else:
                    # Returns when gRPC has taken it over: a slow reader holds one response and nothing else up.
                    await context.write(encoded)
        finally:
            reading.cancel()
            del self._wakes[number]
            code, reason = self._ends.pop(number, (grpc.StatusCode.UNKNOWN, ""))
            self._distributor.close(number)
            self._after()
        if code is not grpc.StatusCode.OK:
            await context.abort(code, reason)

    async def _admit(self, context: _Context) -> None:
        tls = self._settings.tls
        if tls is not None and not carries_name(context.auth_context(), tls.client_sans):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the certificate's name is not on the list")
        if not self._serving:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this operator does not hold the lease")
        if len(self._wakes) >= self._settings.max_streams:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{len(self._wakes)} streams are open already")

    async def _read(self, number: int, requests: _Context) -> None:
        """Hand over what the client says, until it says no more."""
        end = (grpc.StatusCode.OK, "")
        try:
            async for body in requests:
                self._distributor.receive(number, decode_request(body), self._clock())
                self._refresh_upstream()
                self._after()
        except (MalformedMessage, ProtocolError) as error:
            end = (grpc.StatusCode.INVALID_ARGUMENT, str(error))
            self._log.warning("stream refused", reason=str(error))
        self._end(number, *end)

    def _end(self, number: int, code: grpc.StatusCode, reason: str) -> None:
        wake = self._wakes.get(number)
        if wake is not None:
            self._ends.setdefault(number, (code, reason))
            wake.set()

    def _end_all(self, reason: str) -> None:
        for number in self._wakes:
            self._end(number, grpc.StatusCode.UNAVAILABLE, reason)

    def _after(self) -> None:
        """Do what the last input asks for."""
        for number, reason in self._distributor.take_closing().items():
            self._end(number, grpc.StatusCode.ABORTED, reason)
        for number in self._distributor.take_woken():
            wake = self._wakes.get(number)
            if wake is not None:
                wake.set()
        if self._distributor.changes != self._told_changes and not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        self._told_changes = self._distributor.changes
        self._on_change()

    async def _sweep(self) -> None:
        """Cut off clients that do not answer, and those that never name themselves, now and then."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            for number in self._distributor.unanswered(self._clock() - self._settings.answer_s):
                self._log.warning("client cut off", reason="it leaves a response unanswered")
                self._end(number, grpc.StatusCode.DEADLINE_EXCEEDED, "a response was left unanswered")

    # The foreign type.

    def _refresh_upstream(self) -> None:
        """Render upstream's type, off the loop and only where somebody asks for it."""
        distribution = self._distributor.published
        busy = self._upstream_task is not None and not self._upstream_task.done()
        wanted = distribution is not None and self._distributor.wants(RATE_LIMIT_CONFIG_TYPE)
        if wanted and not busy and distribution is not None and self._upstream.version != distribution.version:
            self._upstream_task = asyncio.get_running_loop().create_task(self._render_upstream(distribution))

    async def _render_upstream(self, distribution: Distribution) -> None:
        forms = await asyncio.to_thread(self._upstream.render, distribution)
        self._distributor.offer(RATE_LIMIT_CONFIG_TYPE, forms)
        self._upstream_task = None
        # It may have changed meanwhile.
        self._refresh_upstream()
        self._after()

    def _bad_files(self, problem: str) -> None:
        self._log.error("TLS files kept as they were", problem=problem)
