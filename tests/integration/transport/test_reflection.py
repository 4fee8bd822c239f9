"""Reflection asked by grpcio's own client side, and the descriptors that it serves."""

from __future__ import annotations

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from ratelimit_service.transport.reflection import REFLECTION_SERVICES, answer_reflection, index_descriptors
from ratelimit_service.wire.protobuf import MalformedMessage
from support.deciders import ValueDecider
from support.transports import TRANSPORTS, on_loop, serving
from tools import reflection_descriptors

Ask = reflection_pb2.ServerReflectionRequest


def _answer(**question: object) -> reflection_pb2.ServerReflectionResponse:
    return reflection_pb2.ServerReflectionResponse.FromString(answer_reflection(Ask(**question).SerializeToString()))


@on_loop
@pytest.mark.parametrize("service", REFLECTION_SERVICES)
async def test_a_tool_can_build_the_service_from_what_reflection_says(service: str) -> None:
    """Both versions answer several questions on one stream, and the files form a complete schema."""
    async with (
        serving(TRANSPORTS["grpcio"], ValueDecider()) as transport,
        grpc.aio.insecure_channel(transport.addresses[0]) as channel,
    ):
        call = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            Ask.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([Ask(list_services=""), Ask(file_containing_symbol="envoy.service.ratelimit.v3.RateLimitService")]))
        listed, described = [answer async for answer in call]
    pool = descriptor_pool.DescriptorPool()
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(body)
        for body in described.file_descriptor_response.file_descriptor_proto
    ]
    waiting = {file.name: file for file in files}
    while waiting:
        ready = [file for file in waiting.values() if not waiting.keys() & set(file.dependency)]
        for file in ready:
            pool.Add(waiting.pop(file.name))

    assert service in {found.name for found in listed.list_services_response.service}
    assert (
        "is_negative_hits"
        in pool.FindMessageTypeByName("envoy.extensions.common.ratelimit.v3.RateLimitDescriptor").fields_by_name
    )
    assert files[0].name == "envoy/service/ratelimit/v3/rls.proto"


@on_loop
async def test_garbage_ends_the_stream() -> None:
    """Bytes that are no request are INVALID_ARGUMENT."""
    async with (
        serving(TRANSPORTS["grpcio"], ValueDecider()) as transport,
        grpc.aio.insecure_channel(transport.addresses[0]) as channel,
    ):
        call = channel.stream_stream(f"/{REFLECTION_SERVICES[0]}/ServerReflectionInfo")(iter([b"\x0a\x09"]))

        assert (await call.code()).name == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "symbol",
    [
        "envoy.service.ratelimit.v3.RateLimitService.ShouldRateLimit",
        "envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit",
        "envoy.service.ratelimit.v3.RateLimitResponse.Code",
        "envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry",
        "envoy.type.v3.RateLimitUnit",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "validate.rules",
    ],
)
def test_every_kind_of_symbol_is_found(symbol: str) -> None:
    """Methods, nested messages and enums, top-level enums, services and extensions."""
    assert _answer(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto


def test_a_file_is_found_by_name_and_the_question_comes_back() -> None:
    """The answer repeats the question, as the protocol asks."""
    answer = _answer(host="h", file_by_filename="grpc/health/v1/health.proto")

    assert len(answer.file_descriptor_response.file_descriptor_proto) == 1
    assert answer.valid_host == answer.original_request.host == "h"


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"file_by_filename": "nope.proto"}, 5),
        ({"file_containing_symbol": "no.Pe"}, 5),
        ({"all_extension_numbers_of_type": "google.protobuf.FieldOptions"}, 12),
        ({}, 12),
    ],
)
def test_what_is_not_there_is_an_error_in_the_answer(question: dict[str, str], code: int) -> None:
    """NOT_FOUND and UNIMPLEMENTED within the message; the stream goes on."""
    assert code == _answer(**question).error_response.error_code


def test_garbage_is_our_error() -> None:
    """MalformedMessage, whatever the bytes."""
    with pytest.raises(MalformedMessage):
        answer_reflection(b"\x0a\x09")


def test_the_committed_descriptors_are_those_of_the_published_packages() -> None:
    """Made anew they are the same schema; `make verify` compares the bytes."""
    assert reflection_descriptors.TARGET.read_bytes() == reflection_descriptors.descriptor_set()


def test_files_without_a_package_are_indexed_too() -> None:
    """A file need not have a package."""
    file = descriptor_pb2.FileDescriptorProto(name="f.proto", message_type=[descriptor_pb2.DescriptorProto(name="M")])
    index = index_descriptors(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())

    assert index.symbols == {b"M": b"f.proto"}
