"""Messages of a .proto file without a compiler: enough of the language for the files of this repository."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

_KINDS = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _KINDS.TYPE_STRING,
    "bytes": _KINDS.TYPE_BYTES,
    "bool": _KINDS.TYPE_BOOL,
    "uint32": _KINDS.TYPE_UINT32,
    "uint64": _KINDS.TYPE_UINT64,
}


def messages_of(path: Path) -> dict[str, type[Message]]:
    """The message classes of a file by their short names."""
    text = re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))
    (package,) = re.findall(r"package ([\w.]+);", text)
    file = descriptor_pb2.FileDescriptorProto(name=path.name, package=package, syntax="proto3")
    enums = dict(re.findall(r"enum (\w+) \{([^}]*)\}", text))
    for name, body in enums.items():
        enum = file.enum_type.add(name=name)
        for value, number in re.findall(r"(\w+) = (\d+);", body):
            enum.value.add(name=value, number=int(number))
    for name, body in re.findall(r"message (\w+) \{([^}]*)\}", text):
        message = file.message_type.add(name=name)
        for repeated, kind, field, number in re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", body):
            added = message.field.add(name=field, number=int(number))
            added.label = _KINDS.LABEL_REPEATED if repeated else _KINDS.LABEL_OPTIONAL
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type = _KINDS.TYPE_ENUM if kind in enums else _KINDS.TYPE_MESSAGE
                added.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [message.name for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in names}
