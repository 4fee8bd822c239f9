"""gRPC server reflection, so that tools like grpcurl need no .proto files.

Source: grpc/grpc-proto `grpc/reflection/v1/reflection.proto`; v1alpha has the same messages under another name.
The descriptors lie beside this module as a serialised `google.protobuf.FileDescriptorSet`, made by
`tools/reflection_descriptors.py` from the published packages. It is read at the first question.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from ratelimit_service.transport.health import RLS_SERVICE
from ratelimit_service.wire.grpc.health import HEALTH_SERVICE
from ratelimit_service.wire.grpc.status import GrpcCode
from ratelimit_service.wire.protobuf import WireType, read_fields, write_bytes, write_varint

REFLECTION_SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Both names under which tools ask."""

DESCRIPTORS_FILE: Final = "reflection.binpb"
"""Name of the descriptor set within this package."""

_SERVICES: Final = (RLS_SERVICE, HEALTH_SERVICE, *REFLECTION_SERVICES)

# FileDescriptorProto: the repeated fields that declare names, and DescriptorProto's that declare nested ones.
_MESSAGE, _ENUM, _SERVICE, _EXTENSION = 4, 5, 6, 7
_NESTED_MESSAGE, _NESTED_ENUM, _NESTED_EXTENSION = 3, 4, 6


class DescriptorIndex(msgspec.Struct, frozen=True):
    """Which file declares what.

    Attributes:
        files: File name → (its serialised FileDescriptorProto, names of the files that it imports).
        symbols: Full name of a service, method, message, enum or extension → file name.
    """

    files: dict[bytes, tuple[bytes, tuple[bytes, ...]]]
    symbols: dict[bytes, bytes]

    def closure(self, name: bytes) -> list[bytes]:
        """Return file `name` and all that it imports, itself first, each once."""
        found: dict[bytes, bytes] = {}
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found[current], imports = self.files[current]
                waiting.extend(imports)
        return list(found.values())


def index_descriptors(descriptor_set: bytes) -> DescriptorIndex:
    """Read a serialised FileDescriptorSet whose files are complete (every import is in it)."""
    index = DescriptorIndex({}, {})
    for body in _submessages(descriptor_set, 1):
        name, package = _first(body, 1), _first(body, 2)
        index.files[name] = (body, tuple(_submessages(body, 3)))
        prefix = package + b"." if package else b""
        for symbol in _symbols(body, prefix):
            index.symbols[symbol] = name
    return index


def answer_reflection(body: bytes) -> bytes:
    """Answer one `ServerReflectionRequest` with a `ServerReflectionResponse`.

    What is not there is an `error_response` inside the message, as the protocol has it; extensions are not listed.

    Raises:
        MalformedMessage: `body` is no such message.
    """
    answer = _error(GrpcCode.UNIMPLEMENTED, "this question is not answered")
    for field in read_fields(body):
        if field.number == 3 and field.wire_type is WireType.LENGTH:
            answer = _file(field.data)
        elif field.number == 4 and field.wire_type is WireType.LENGTH:
            answer = _file(_index().symbols.get(field.data, b""))
        elif field.number == 7:
            answer = _service_list()
    return write_bytes(b"\x0a", _first(body, 1)) + write_bytes(b"\x12", body) + answer


@functools.cache
def _index() -> DescriptorIndex:
    return index_descriptors(Path(__file__).with_name(DESCRIPTORS_FILE).read_bytes())


def _file(name: bytes) -> bytes:
    if name not in _index().files:
        return _error(GrpcCode.NOT_FOUND, "no such file or symbol")
    return write_bytes(b"\x22", b"".join(write_bytes(b"\x0a", body) for body in _index().closure(name)))


def _service_list() -> bytes:
    return write_bytes(
        b"\x32", b"".join(write_bytes(b"\x0a", write_bytes(b"\x0a", name.encode())) for name in _SERVICES)
    )


def _error(code: GrpcCode, message: str) -> bytes:
    return write_bytes(b"\x3a", b"\x08" + write_varint(code) + write_bytes(b"\x12", message.encode()))


def _submessages(body: bytes, number: int) -> Iterator[bytes]:
    return (field.data for field in read_fields(body) if field.number == number)


def _first(body: bytes, number: int) -> bytes:
    return next(_submessages(body, number), b"")


def _symbols(file: bytes, prefix: bytes) -> Iterator[bytes]:
    for number in (_ENUM, _EXTENSION):
        for body in _submessages(file, number):
            yield prefix + _first(body, 1)
    for body in _submessages(file, _SERVICE):
        service = prefix + _first(body, 1)
        yield service
        yield from (service + b"." + _first(method, 1) for method in _submessages(body, 2))
    for body in _submessages(file, _MESSAGE):
        yield from _message_symbols(body, prefix)


def _message_symbols(message: bytes, prefix: bytes) -> Iterator[bytes]:
    name = prefix + _first(message, 1)
    yield name
    for number in (_NESTED_ENUM, _NESTED_EXTENSION):
        yield from (name + b"." + _first(body, 1) for body in _submessages(message, number))
    for body in _submessages(message, _NESTED_MESSAGE):
        yield from _message_symbols(body, name + b".")
