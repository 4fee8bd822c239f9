"""The gRPC server on grpcio: the reference transport, with reflection.

Bodies pass through as bytes (no serialiser), so that one codec serves every transport. grpcio's own servicer
classes are not used, and neither is the protobuf runtime: all messages here are a few fields, read by `wire`.
Everything runs on one event loop; only the look at the TLS files happens on grpcio's handshake thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import grpc.aio
import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.telemetry.tracing import Tracing, is_sampled
from ratelimit_service.transport.addresses import CannotListen, require_free, with_port
from ratelimit_service.transport.contract import Answer, Decider
from ratelimit_service.transport.health import RLS_SERVICE, HealthBoard
from ratelimit_service.transport.reflection import REFLECTION_SERVICES, answer_reflection
from ratelimit_service.transport.tls import IdentityFiles, InvalidTls, TlsSettings, carries_allowed_name
from ratelimit_service.wire.grpc.deadline import answer_by_us
from ratelimit_service.wire.grpc.health import (
    HEALTH_SERVICE,
    ServingStatus,
    decode_health_request,
    encode_health_response,
)
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.protobuf import MalformedMessage

Context: TypeAlias = grpc.aio.ServicerContext
Unary: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]
Stream: TypeAlias = Callable[[Any, Context], AsyncIterator[bytes]]

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_LOG: Final = logging.getLogger(__name__)


class GrpcioSettings(msgspec.Struct, frozen=True):
    """How the server behaves towards its clients.

    Attributes:
        longest_answer_us: Every answer is owed within this, or 0.8 of the client's own deadline (DECISIONS 29).
        max_message_bytes: A longer message is RESOURCE_EXHAUSTED.
        max_streams: Calls under way on one connection; Envoy sends all its traffic over few.
        max_age_s: A connection is told to leave after this, ±10 %, so that load spreads over new replicas.
        age_grace_s: How long its calls may then go on.
        keepalive_s: A silent connection is pinged this often.
        min_ping_interval_s: A client that pings more often, calls or no calls, is sent away.
    """

    longest_answer_us: int = 10_000
    max_message_bytes: int = 4 * 1024 * 1024
    max_streams: int = 1_000
    max_age_s: int = 1_800
    age_grace_s: int = 10
    keepalive_s: int = 300
    min_ping_interval_s: int = 5


class GrpcioTransport:
    """Serves ShouldRateLimit, health and reflection. Implements `Transport`; made and used on one event loop.

    Args:
        decider: Decides each call.
        clock: One reading of the clocks; called once per call.
        addresses: `HOST:PORT` (port 0: any free one) and `unix:PATH`, at least one.
        settings: Behaviour towards clients.
        tls: None: plain text.
        tracing: Follows calls whose callers want it; None: none.

    Raises:
        InvalidTls: The TLS files are not good; raised on construction.
    """

    def __init__(
        self,
        decider: Decider,
        clock: Callable[[], Instant],
        addresses: Sequence[str],
        *,
        settings: GrpcioSettings | None = None,
        tls: TlsSettings | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._configured = tuple(addresses)
        self._settings = settings or GrpcioSettings()
        self._health = HealthBoard()
        self._identity = None if tls is None else IdentityFiles(tls)
        self._requires_client_cert = tls is not None and tls.client_ca_path is not None
        self._bound: list[str] = []
        self._server: grpc.aio.Server | None = None
        methods = _Methods(decider, clock, self._settings.longest_answer_us, self._health, tracing)
        allowed = frozenset(name.encode() for name in tls.client_sans) if tls is not None else frozenset()
        self._handlers = methods.handlers(_Admission(allowed) if allowed else None)

    async def start(self) -> None:
        """Bind every address and serve; nothing is served when one cannot be bound.

        Raises:
            CannotListen: Names the address and the reason.
        """
        server = grpc.aio.server(handlers=self._handlers, options=_options(self._settings))
        try:
            for address in self._configured:
                self._bound.append(with_port(address, self._bind(server, address)))
        except CannotListen:
            self._bound.clear()
            await server.stop(None)
            raise
        await server.start()
        self._server = server

    def set_serving(self, serving: bool) -> None:
        """What the health service answers; not serving until told."""
        self._health.set_serving(serving)

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, end every Watch with NOT_SERVING, finish the calls under way, then close.

        What still runs after `grace_s` seconds is cancelled. Draining twice, or before `start`, does nothing.
        """
        self._health.close()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with real ports; empty before `start`."""
        return list(self._bound)

    def _bind(self, server: grpc.aio.Server, address: str) -> int:
        require_free(address)
        try:
            if self._identity is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, self._credentials(self._identity)))
        except RuntimeError as error:
            raise CannotListen(address, str(error)) from error

    def _credentials(self, files: IdentityFiles) -> grpc.ServerCredentials:
        source = _CertificateSource(files)
        return grpc.dynamic_ssl_server_credentials(source.current(), source.fetch, self._requires_client_cert)


class _CertificateSource:
    """What grpcio asks for at each handshake, on a thread of its own and never twice at a time."""

    def __init__(self, files: IdentityFiles) -> None:
        self._files = files

    def current(self) -> Any:  # grpcio publishes no type for a certificate configuration
        identity = self._files.identity
        return grpc.ssl_server_certificate_configuration([(identity.key, identity.cert_chain)], identity.client_ca)

    def fetch(self) -> Any:
        """Return the new configuration, or None to go on with the last one."""
        try:
            changed = self._files.refresh()
        except InvalidTls as error:
            _LOG.warning("the new TLS files are not taken, the last good ones stay: %s", error)
            return None
        return None if changed is None else self.current()


class _LateReply:
    """Where the answer of one waiting call arrives. The first answer counts; a call that ended takes none."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[Answer] | None = None

    def __call__(self, answer: Answer) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(answer)

    def wait(self) -> asyncio.Future[Answer]:
        self._future = asyncio.get_running_loop().create_future()
        return self._future


class _Admission:
    """Refuses callers whose certificate carries none of the allowed names."""

    def __init__(self, allowed: frozenset[bytes]) -> None:
        self._allowed = allowed

    async def require(self, context: Context) -> None:
        names = context.auth_context().get("x509_subject_alternative_name", ())
        if not carries_allowed_name(names, self._allowed):
            await _fail(context, GrpcCode.PERMISSION_DENIED, "no name of the client's certificate is allowed here")


def _follow(tracing: Tracing, context: Context) -> None:
    """Follow a call, if its caller does; until it is decided about nothing else runs."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and is_sampled(traceparent := str(value).encode()):
            tracing.begin(traceparent)


class _Methods:
    """The behaviours behind the method names."""

    def __init__(
        self,
        decider: Decider,
        clock: Callable[[], Instant],
        longest_answer_us: int,
        health: HealthBoard,
        tracing: Tracing | None = None,
    ) -> None:
        self._decider = decider
        self._tracing = tracing
        self._clock = clock
        self._longest_answer_us = longest_answer_us
        self._health = health

    def handlers(self, admission: _Admission | None) -> list[grpc.GenericRpcHandler]:
        decide = grpc.unary_unary_rpc_method_handler(_admitted(self.should_rate_limit, admission))
        check = grpc.unary_unary_rpc_method_handler(_admitted(self.check, admission))
        watch = grpc.unary_stream_rpc_method_handler(_admitted_stream(self.watch, admission))
        reflect = grpc.stream_stream_rpc_method_handler(_admitted_stream(self.reflect, admission))
        services = {
            RLS_SERVICE: {"ShouldRateLimit": decide},
            HEALTH_SERVICE: {"Check": check, "Watch": watch},
            **{service: {"ServerReflectionInfo": reflect} for service in REFLECTION_SERVICES},
        }
        return [grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items()]

    async def should_rate_limit(self, body: bytes, context: Context) -> bytes:
        now = self._clock()
        remaining_s = context.time_remaining()
        remaining_us = None if remaining_s is None else int(remaining_s * 1_000_000)
        deadline_us = answer_by_us(now.boot_us, remaining_us, self._longest_answer_us)
        if deadline_us is None:
            return await _fail(context, GrpcCode.DEADLINE_EXCEEDED, "the deadline had passed on arrival")
        late = _LateReply()
        if self._tracing is not None:
            _follow(self._tracing, context)
        answer = self._decider.decide(body, now, deadline_us, late)
        if answer is None:
            answer = await late.wait()
        if isinstance(answer, GrpcError):
            return await _fail(context, answer.code, answer.message)
        return answer

    async def check(self, body: bytes, context: Context) -> bytes:
        try:
            service = decode_health_request(body)
        except MalformedMessage as error:
            return await _fail(context, GrpcCode.INVALID_ARGUMENT, str(error))
        status = self._health.status_of(service)
        if status is ServingStatus.SERVICE_UNKNOWN:
            return await _fail(context, GrpcCode.NOT_FOUND, "unknown service")
        return encode_health_response(status)

    async def watch(self, body: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            service = decode_health_request(body)
        except MalformedMessage as error:
            await _fail(context, GrpcCode.INVALID_ARGUMENT, str(error))
        async for status in self._health.follow(service):
            yield encode_health_response(status)

    async def reflect(self, bodies: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for body in bodies:
            try:
                answer = answer_reflection(body)
            except MalformedMessage as error:
                await _fail(context, GrpcCode.INVALID_ARGUMENT, str(error))
            yield answer


async def _fail(context: Context, code: GrpcCode, message: str) -> NoReturn:
    """End the call; grpcio's `abort` raises its own control-flow error."""
    await context.abort(_CODES[code], message)
    raise AssertionError("abort has raised")  # pragma: no cover - tells mypy what grpcio's types do not


def _admitted(behaviour: Unary, admission: _Admission | None) -> Unary:
    if admission is None:
        return behaviour

    async def guarded(body: bytes, context: Context) -> bytes:
        await admission.require(context)
        return await behaviour(body, context)

    return guarded


def _admitted_stream(behaviour: Stream, admission: _Admission | None) -> Stream:
    if admission is None:
        return behaviour

    async def guarded(asked: Any, context: Context) -> AsyncIterator[bytes]:
        await admission.require(context)
        async for body in behaviour(asked, context):
            yield body

    return guarded


def _options(settings: GrpcioSettings) -> list[tuple[str, int]]:
    return [
        # Two servers on one port would share its connections in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.max_connection_age_ms", settings.max_age_s * 1000),
        ("grpc.max_connection_age_grace_ms", settings.age_grace_s * 1000),
        ("grpc.keepalive_time_ms", settings.keepalive_s * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Envoy pings idle connections too; the default of five minutes would send it away.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", settings.min_ping_interval_s * 1000),
    ]
