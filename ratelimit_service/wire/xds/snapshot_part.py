"""A set of resources at rest (`SnapshotPart` of `config.proto`), gzip-compressed: on disk, or in bootstrap ConfigMaps.

A set is written in parts, because a ConfigMap holds at most 1 MiB; it is whole when every part of one version is there.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.errors import TidegateError
from ratelimit_service.wire.protobuf import MalformedMessage, read_fields, write_bytes
from ratelimit_service.wire.xds.text import read_data, read_number, read_text, tag, write_number, write_text

PART_SUFFIX: Final = ".snapshot.gz"
"""End of the name of a part's file, or of its key in a ConfigMap."""

MAX_PARTS: Final = 64
MAX_PART_BYTES: Final = 64 * 1024 * 1024
"""Longest part, unpacked; a longer one is a bomb."""

_LEVEL: Final = 6


class SnapshotTooLarge(TidegateError):
    """A set does not fit into the parts that it may have."""


class StoredSet(msgspec.Struct, frozen=True):
    """A whole set.

    Attributes:
        version: Hash of it.
        compiled_at_us: When it was compiled, microseconds since 1970.
        type_url: What its resources are.
        resources: Each a `google.protobuf.Any`.
    """

    version: str
    compiled_at_us: int
    type_url: str
    resources: tuple[bytes, ...]


def encode_parts(stored: StoredSet, *, most_bytes: int, most_parts: int) -> list[bytes]:
    """A set as parts of at most `most_bytes` each, compressed; as few as `most_parts` allow to be filled evenly.

    Raises:
        SnapshotTooLarge: It does not fit.
    """
    for parts in (2**power for power in range(most_parts.bit_length())):
        count = min(parts, most_parts)
        encoded = [_encode(stored, part, count) for part in range(count)]
        if max(map(len, encoded)) <= most_bytes:
            return encoded
    raise SnapshotTooLarge(
        f"{len(stored.resources)} resources do not fit into {most_parts} parts of {most_bytes} bytes"
    )


def decode_parts(contents: Iterable[bytes]) -> tuple[StoredSet | None, list[str]]:
    """The newest whole set among parts, None if there is none, and what is wrong with the rest."""
    problems: list[str] = []
    found: dict[str, dict[int, _Part]] = {}
    for content in contents:
        try:
            part = _decode(content)
        except (MalformedMessage, OSError, EOFError, zlib.error) as error:
            problems.append(f"a part of a snapshot cannot be read: {error}")
        else:
            found.setdefault(part.version, {})[part.part] = part
    whole = [parts for parts in found.values() if _is_whole(parts)]
    problems += [f"snapshot {version} lacks parts" for version, parts in found.items() if not _is_whole(parts)]
    if not whole:
        return None, problems
    newest = max(whole, key=lambda parts: parts[0].compiled_at_us)
    resources = [resource for index in sorted(newest) for resource in newest[index].resources]
    first = newest[0]
    return StoredSet(first.version, first.compiled_at_us, first.type_url, tuple(resources)), problems


class _Part(msgspec.Struct, frozen=True):
    version: str
    compiled_at_us: int
    part: int
    parts: int
    type_url: str
    resources: Sequence[bytes]


def _is_whole(parts: Mapping[int, _Part]) -> bool:
    return sorted(parts) == list(range(next(iter(parts.values())).parts))


def _encode(stored: StoredSet, part: int, parts: int) -> bytes:
    resources = stored.resources[part::parts]
    head = write_text(1, stored.version) + write_number(2, stored.compiled_at_us)
    head += write_number(3, part) + write_number(4, parts) + write_text(5, stored.type_url)
    body = b"".join((head, *(write_bytes(tag(6), resource) for resource in resources)))
    # The same set is the same bytes: no time in the header, so an unchanged ConfigMap is not written again.
    return gzip.compress(body, _LEVEL, mtime=0)


def _decode(content: bytes) -> _Part:
    unpacking = zlib.decompressobj(wbits=31)
    body = unpacking.decompress(content, MAX_PART_BYTES + 1)
    if len(body) > MAX_PART_BYTES:
        raise MalformedMessage(0, f"longer than {MAX_PART_BYTES} bytes")
    # The checksum stands at the end: without it the part is cut off.
    if not unpacking.eof:
        raise MalformedMessage(len(body), "cut off")
    texts, numbers = {1: "", 5: ""}, {2: 0, 3: 0, 4: 0}
    resources: list[bytes] = []
    for field in read_fields(body):
        if field.number == 6:
            resources.append(read_data(field))
        elif field.number in texts:
            texts[field.number] = read_text(field)
        elif field.number in numbers:
            numbers[field.number] = read_number(field)
    if not numbers[3] < numbers[4] <= MAX_PARTS:
        raise MalformedMessage(0, f"part {numbers[3]} of {numbers[4]}")
    return _Part(texts[1], numbers[2], numbers[3], numbers[4], texts[5], resources)
