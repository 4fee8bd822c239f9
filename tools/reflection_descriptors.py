"""Make `ratelimit_service/transport/reflection.binpb` from the published packages of the protocols.

`make generate` writes it, `make verify` compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

TARGET = Path(__file__).parents[1] / "ratelimit_service" / "transport" / "reflection.binpb"
_DESCRIPTOR_FILE = "envoy/extensions/common/ratelimit/v3/ratelimit.proto"


def descriptor_set() -> bytes:
    """Return the serialised FileDescriptorSet: our services and all that they import, sorted by name."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for module in (rls_pb2, health_pb2, reflection_pb2):
        _collect(module.DESCRIPTOR, files)
    for name in [name for name in files if name.startswith("grpc_")]:
        # The Python packages file these under their own names; every other tool knows `grpc/health/…`.
        files[name].name = name.replace("grpc_", "grpc/", 1)
    _add_negative_hits(files[_DESCRIPTOR_FILE])
    version_1 = _reflection_v1(files[reflection_pb2.DESCRIPTOR.name])
    files[version_1.name] = version_1
    ordered = descriptor_pb2.FileDescriptorSet(file=[files[name] for name in sorted(files)])
    return bytes(ordered.SerializeToString(deterministic=True))


def _collect(file: FileDescriptor, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    if file.name not in files:
        files[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
        for imported in file.dependencies:
            _collect(imported, files)


def _add_negative_hits(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Add the descriptor's field 4, which Envoy 1.40 has and xds-protos 1.85 lacks (DECISIONS 2)."""
    (descriptor,) = (message for message in file.message_type if message.name == "RateLimitDescriptor")
    if all(field.number != 4 for field in descriptor.field):
        descriptor.field.add(
            name="is_negative_hits",
            json_name="isNegativeHits",
            number=4,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        )


def _reflection_v1(alpha: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Return v1's file: v1alpha's messages under the other package."""
    text = alpha.SerializeToString(deterministic=True)
    file = descriptor_pb2.FileDescriptorProto.FromString(text)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1"
    for message in file.message_type:
        for field in message.field:
            field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
        method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    return file


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` say whether it is up to date (exit 1 when not)."""
    made = descriptor_set()
    if "--check" not in arguments:
        TARGET.write_bytes(made)
    return int(made != TARGET.read_bytes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
