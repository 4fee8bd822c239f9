"""What `--transport` may name, each made where it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.settings import ServeSettings
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.telemetry.tracing import Tracing
from ratelimit_service.transport.contract import Decider, Transport
from ratelimit_service.transport.timing import TimedDecider
from ratelimit_service.transport.tls import TlsSettings

MakeTransport = Callable[[Decider, Callable[[], Instant], ServeSettings, Histogram, Tracing | None], Transport]
"""From who decides, the clocks, the settings, what takes the durations of calls, and what follows them."""


def _grpcio(
    decider: Decider,
    clock: Callable[[], Instant],
    settings: ServeSettings,
    durations: Histogram,
    tracing: Tracing | None,
) -> Transport:
    # Where it serves and nowhere else: it costs 15 MB.
    from ratelimit_service.transport.grpcio import GrpcioSettings, GrpcioTransport  # noqa: PLC0415

    return GrpcioTransport(
        TimedDecider(decider, durations),
        clock,
        [str(address) for address in settings.grpc],
        settings=GrpcioSettings(longest_answer_us=settings.deadline_us, max_message_bytes=settings.max_message_bytes),
        tls=_tls(settings),
        tracing=tracing,
    )


def _native(
    decider: Decider,
    clock: Callable[[], Instant],
    settings: ServeSettings,
    durations: Histogram,
    tracing: Tracing | None,
) -> Transport:
    from ratelimit_service.transport.native import NativeTransport  # noqa: PLC0415 — as grpcio
    from ratelimit_service.transport.native_settings import NativeSettings  # noqa: PLC0415

    return NativeTransport(
        decider,
        clock,
        [str(address) for address in settings.grpc],
        settings=NativeSettings(longest_answer_us=settings.deadline_us, max_message_bytes=settings.max_message_bytes),
        tls=_tls(settings),
        durations=durations,
        tracing=tracing,
    )


TRANSPORTS: Final[Mapping[str, MakeTransport]] = {"grpcio": _grpcio, "native": _native}
"""What `--transport` may name."""


def _tls(settings: ServeSettings) -> TlsSettings | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TlsSettings(settings.tls_cert, settings.tls_key, settings.client_ca, settings.client_sans)
