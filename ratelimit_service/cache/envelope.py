"""What a value looks like in Redis and on disk: a header of fixed layout, its tags, the payload.

Big-endian, version 1:

    offset  size  field
    0       2     magic, b"TG"
    2       1     version, 1
    3       1     flags: bit 0 = absent (a negative entry)
    4       8     checksum: BLAKE2b of 8 bytes over all that follows
    12      1     codec's number
    13      1     compression method's number
    14      4     id of the compression dictionary, 0 for none
    18      8     bytes of the payload once unpacked
    26      8     hard expiry, wall clock, µs since 1970
    34      8     soft expiry, likewise
    42      8     fence: number of the load that made the value; a greater one replaces a smaller one
    50      4     cost: how long the load took, µs, at most 2³² - 1
    54      2     number of tags
    56      …     per tag: bytes of its name (2), its version (8), its name in UTF-8
    …       …     payload, to the end

A reader checks magic, version and checksum before it believes anything else. The checksum finds damage, not forgery:
whoever may write to the Redis of a service may write values. Hostile bytes with a valid checksum still meet
bounds on every length, and unpacked sizes are capped before anything is unpacked.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

import msgspec

from ratelimit_service.cache.compression import Method, Packed
from ratelimit_service.cache.entry import NEVER_US
from ratelimit_service.cache.errors import CorruptPayload, PayloadTooLarge

__all__ = ["MAX_COST_US", "MAX_TAGS", "MAX_UNPACKED_BYTES", "Envelope", "pack", "unpack"]

MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024
"""A payload that says to be larger once unpacked is refused, unless the caller sets another cap."""
MAX_TAGS: Final = 65_535
MAX_COST_US: Final = 2**32 - 1

_MAGIC: Final = b"TG"
_VERSION: Final = 1
_ABSENT: Final = 1
_PREFIX: Final = struct.Struct(">2sBB8s")
_HEADER: Final = struct.Struct(">BBIQqqQIH")
_TAG: Final = struct.Struct(">HQ")
_CHECKSUM_BYTES: Final = 8


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A value with all that a reader needs to know before it decodes it.

    Attributes:
        codec: Number of the codec that wrote the value.
        packed: The encoded value, compressed or not.
        expires_us: Wall clock from which it is never served; `NEVER_US` for no end.
        soft_expires_us: Wall clock from which it is worth loading anew; at most `expires_us`.
        tags: Name and version of each tag when the value was loaded; a tag that has moved on makes it a miss.
        fence: Number of the load; see the layout.
        cost_us: How long the load took, for early refresh.
        absent: There is no such value, and this entry says so (negative caching); `packed` is empty then.
    """

    codec: int
    packed: Packed
    expires_us: int = NEVER_US
    soft_expires_us: int = NEVER_US
    tags: tuple[tuple[str, int], ...] = ()
    fence: int = 0
    cost_us: int = 0
    absent: bool = False


def pack(envelope: Envelope) -> bytes:
    """Write an envelope.

    Raises:
        ValueError: A field does not fit the layout, such as a tag of more than 65,535 bytes.
    """
    packed = envelope.packed
    try:
        header = _HEADER.pack(
            envelope.codec,
            packed.method.value,
            packed.dictionary_id,
            packed.raw_bytes,
            envelope.expires_us,
            envelope.soft_expires_us,
            envelope.fence,
            min(envelope.cost_us, MAX_COST_US),
            len(envelope.tags),
        )
        tags = [_pack_tag(name, version) for name, version in envelope.tags]
    except struct.error as error:
        raise ValueError(f"the envelope has a field out of range: {error}") from error
    body = b"".join((header, *tags, packed.data))
    checksum = blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
    return _PREFIX.pack(_MAGIC, _VERSION, _ABSENT if envelope.absent else 0, checksum) + body


def _pack_tag(name: str, version: int) -> bytes:
    encoded = name.encode()
    return _TAG.pack(len(encoded), version) + encoded


def unpack(data: bytes, *, max_unpacked_bytes: int = MAX_UNPACKED_BYTES) -> Envelope:
    """Read an envelope.

    Raises:
        CorruptPayload: These bytes are damaged, no envelope, or one of a later version.
        PayloadTooLarge: The payload says to be larger once unpacked than `max_unpacked_bytes`.
    """
    if len(data) < _PREFIX.size + _HEADER.size:
        raise CorruptPayload("shorter than an envelope's header")
    magic, version, flags, checksum = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptPayload("no envelope")
    if version != _VERSION:
        raise CorruptPayload(f"envelope of version {version}")
    body = memoryview(data)[_PREFIX.size :]
    if blake2b(body, digest_size=_CHECKSUM_BYTES).digest() != checksum:
        raise CorruptPayload("checksum does not match")
    if flags & ~_ABSENT:
        raise CorruptPayload(f"unknown flags {flags:#x}")
    codec, number, dictionary_id, raw_bytes, expires_us, soft_us, fence, cost_us, tag_count = _HEADER.unpack_from(body)
    if raw_bytes > max_unpacked_bytes:
        raise PayloadTooLarge(raw_bytes, max_unpacked_bytes)
    try:
        method = Method(number)
    except ValueError:
        raise CorruptPayload(f"unknown compression method {number}") from None
    tags, offset = _unpack_tags(body, tag_count)
    return Envelope(
        codec=codec,
        packed=Packed(method, dictionary_id, raw_bytes, bytes(body[offset:])),
        expires_us=expires_us,
        soft_expires_us=soft_us,
        tags=tags,
        fence=fence,
        cost_us=cost_us,
        absent=bool(flags & _ABSENT),
    )


def _unpack_tags(body: memoryview, count: int) -> tuple[tuple[tuple[str, int], ...], int]:
    """The tags, and where the payload begins."""
    offset = _HEADER.size
    tags: list[tuple[str, int]] = []
    for _ in range(count):
        if offset + _TAG.size > len(body):
            raise CorruptPayload("tags run past the end")
        size, version = _TAG.unpack_from(body, offset)
        offset += _TAG.size
        if offset + size > len(body):
            raise CorruptPayload("tags run past the end")
        try:
            tags.append((str(body[offset : offset + size], "utf-8"), version))
        except UnicodeDecodeError:
            raise CorruptPayload("a tag is not UTF-8") from None
        offset += size
    return tuple(tags), offset
