"""Health messages against grpcio-health-checking."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2

from ratelimit_service.wire.grpc.health import ServingStatus, decode_health_request, encode_health_response
from ratelimit_service.wire.protobuf import MalformedMessage


@pytest.mark.parametrize("status", ServingStatus)
def test_a_status_is_what_the_published_message_says(status: ServingStatus) -> None:
    """Names and numbers agree, and so do the bytes."""
    message = health_pb2.HealthCheckResponse(status=status.name)

    assert message.SerializeToString() == encode_health_response(status)


@pytest.mark.parametrize("service", ["", "ratelimit", "é" * 100])
def test_a_service_is_read_from_the_published_message(service: str) -> None:
    """Empty, short and longer than 127 bytes."""
    body = health_pb2.HealthCheckRequest(service=service).SerializeToString()

    assert service.encode() == decode_health_request(body + b"\x28\x01")


@pytest.mark.parametrize("body", [b"\x08\x01", b"\x0a\x02a", b"\xff"])
def test_bytes_that_are_no_request_are_refused(body: bytes) -> None:
    """Another wire type, a cut, garbage."""
    with pytest.raises(MalformedMessage):
        decode_health_request(body)
