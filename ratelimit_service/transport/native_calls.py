"""What the native transport makes of a call's head, and how its answer is written."""

from __future__ import annotations

import enum
from typing import Final, cast

import msgspec

from ratelimit_service.transport.contract import Answer
from ratelimit_service.transport.health import RLS_SERVICE, HealthBoard
from ratelimit_service.wire.grpc import calls
from ratelimit_service.wire.grpc.calls import OK_TRAILERS, RESPONSE_HEAD, Call, Refusal, message_prefix, trailers_only
from ratelimit_service.wire.grpc.deadline import answer_by_us
from ratelimit_service.wire.grpc.health import (
    HEALTH_SERVICE,
    ServingStatus,
    decode_health_request,
    encode_health_response,
)
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.http2.connection import Connection
from ratelimit_service.wire.http2.fields import Head, Shape
from ratelimit_service.wire.http2.sending import Form
from ratelimit_service.wire.protobuf import MalformedMessage


class Method(enum.Enum):
    """What is served."""

    DECIDE = f"/{RLS_SERVICE}/ShouldRateLimit"
    CHECK = f"/{HEALTH_SERVICE}/Check"
    WATCH = f"/{HEALTH_SERVICE}/Watch"


_LONG_US: Final = 500_000
"""No read takes so long to work through, unless the process is stopped."""
_METHODS: Final = {method.value.encode(): method for method in Method}


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where a call goes; kept beside its head, since heads repeat.

    Attributes:
        method: What answers it.
        decides: That is the limiter.
        allowance_us: Time for the answer.
        timeout_ns: How long the caller waits; 0: so long that it cannot go by within one read.
        gzip: Its message may be gzip.
    """

    method: Method
    decides: bool
    allowance_us: int
    timeout_ns: int
    gzip: bool


OK_FORM: Final = Form(RESPONSE_HEAD, OK_TRAILERS, message_prefix)
"""A message with status OK."""
INTERNAL: Final = trailers_only(GrpcError(GrpcCode.INTERNAL, "the decision failed"))
NOT_ADMITTED: Final = trailers_only(
    GrpcError(GrpcCode.PERMISSION_DENIED, "no name of the client's certificate is allowed here")
)
TOO_LATE: Final = trailers_only(GrpcError(GrpcCode.DEADLINE_EXCEEDED, "the deadline had passed on arrival"))
TOO_MANY_WATCHES: Final = trailers_only(
    GrpcError(GrpcCode.RESOURCE_EXHAUSTED, "too many health watches on one connection")
)
_UNIMPLEMENTED: Final = trailers_only(GrpcError(GrpcCode.UNIMPLEMENTED, "unknown method"))


def find_route(head: Head, longest_us: int) -> Route | Refusal:
    """Where a call with this head goes.

    Args:
        head: Its header block.
        longest_us: The service's own bound on its answers; the same for every call.
    """
    route = head.shape.call
    if route is None:
        route = head.shape.call = _find_shape_route(head.shape, longest_us)
    if head.varied is None or not isinstance(route, Route):
        return cast("Route | Refusal", route)
    timeout_us = calls.read_timeout_us(head.varied)
    if timeout_us is None:
        return calls.BAD_TIMEOUT
    if timeout_us >= _LONG_US and timeout_us * 4 // 5 >= longest_us:
        # As if there were none.
        return route
    allowance_us = answer_by_us(0, timeout_us, longest_us)
    if allowance_us is None:
        return TOO_LATE
    timeout_ns = timeout_us * 1_000 if timeout_us < _LONG_US else 0
    return Route(route.method, route.decides, allowance_us, timeout_ns, route.gzip)


def _find_shape_route(shape: Shape, longest_us: int) -> Route | Refusal:
    call = calls.read_call(shape)
    if not isinstance(call, Call):
        return call
    method = _METHODS.get(call.path)
    if method is None:
        return _UNIMPLEMENTED
    return Route(method, method is Method.DECIDE, longest_us, 0, call.gzip)


def write_answer(wire: Connection, stream: int, answer: Answer) -> None:
    """Answer a unary call."""
    if isinstance(answer, GrpcError):
        write_refusal(wire, stream, trailers_only(answer))
    else:
        wire.answer(stream, OK_FORM, answer)


def write_refusal(wire: Connection, stream: int, refusal: Refusal) -> None:
    """Answer a call that is not served."""
    if refusal.body:
        wire.begin(stream, refusal.head)
        wire.send(stream, refusal.body, b"")
    else:
        wire.answer_bare(stream, refusal.head)


def check_health(health: HealthBoard, message: bytes) -> Answer:
    """The answer to `Check`."""
    service = watched_service(message)
    if isinstance(service, GrpcError):
        return service
    status = health.status_of(service)
    if status is ServingStatus.SERVICE_UNKNOWN:
        return GrpcError(GrpcCode.NOT_FOUND, "unknown service")
    return encode_health_response(status)


def watched_service(message: bytes) -> bytes | GrpcError:
    """The service that a health request names."""
    try:
        return decode_health_request(message)
    except MalformedMessage as error:
        return GrpcError(GrpcCode.INVALID_ARGUMENT, str(error))
