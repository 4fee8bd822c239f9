"""The two messages of gRPC's health protocol as bytes.

Source: grpc/grpc-proto `grpc/health/v1/health.proto`. By hand because each is one field, and grpcio's own
package would bring the protobuf runtime into the service.
"""

from __future__ import annotations

import enum
from typing import Final

from ratelimit_service.wire.protobuf import MalformedMessage, WireType, read_fields

HEALTH_SERVICE: Final = "grpc.health.v1.Health"


class ServingStatus(enum.IntEnum):
    """`HealthCheckResponse.ServingStatus`."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


_ENCODED: Final = {status: bytes((0x08, status)) if status else b"" for status in ServingStatus}


def decode_health_request(body: bytes) -> bytes:
    """Return the service that a `HealthCheckRequest` asks about, as sent; empty means the whole server.

    Raises:
        MalformedMessage: `body` is no such message.
    """
    service = b""
    for field in read_fields(body):
        if field.number == 1:
            if field.wire_type is not WireType.LENGTH:
                raise MalformedMessage(field.offset, f"field 1 with wire type {field.wire_type}")
            service = field.data
    return service


def encode_health_response(status: ServingStatus) -> bytes:
    """Return a `HealthCheckResponse`."""
    return _ENCODED[status]
