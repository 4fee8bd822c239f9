"""What lies in the database for one cache key: a head, then key and payload, in clear or sealed.

Head of version 1, big-endian:

    offset  size  field
    0       1     version, 1
    1       4     id of the key that it is sealed with, zero for none
    5       8     expiry, wall clock, µs since 1970
    13      8     number: greater for what was written later
    21      4     CRC-32 of name, the 21 bytes before, and body; zero where sealed, the seal's own tag does it there
    25      …     body: bytes of the cache key (2), the key in UTF-8, the payload; sealed as a whole

The name is the record's key in the database. In clear it is the cache key, or, where that is too long for the database,
its beginning, a byte that UTF-8 never has, and a hash. Where records are sealed it is a keyed hash. It takes part in
checksum and seal, so that a record that turns up under another name is no record.
"""

from __future__ import annotations

import struct
import zlib
from hashlib import blake2b
from typing import Final

import msgspec

from ratelimit_service.cache.errors import CorruptPayload
from ratelimit_service.cache.l3.keyring import KeyRing, SealingKey

__all__ = ["HEAD_BYTES", "Record", "clear_name", "index_key", "read_head", "read_record", "write_record"]

HEAD_BYTES: Final = 25

_VERSION: Final = 1
_HEAD: Final = struct.Struct(">B4sqQ")
_CRC: Final = struct.Struct(">I")
_KEY_SIZE: Final = struct.Struct(">H")
_INDEX: Final = struct.Struct(">QQ")
_IN_CLEAR: Final = bytes(4)
_SEALED_CRC: Final = bytes(4)
_MOST_NAME_BYTES: Final = 500
"""lmdb takes 511."""
_KEPT_NAME_BYTES: Final = 460


class Record(msgspec.Struct, frozen=True):
    """A record that was read and found whole.

    Attributes:
        key: The cache key.
        payload: What was stored.
        expires_us: Wall clock from which it is not served.
    """

    key: str
    payload: bytes
    expires_us: int


def clear_name(key: bytes) -> bytes:
    """Under which name the record of this cache key lies, where records are in clear."""
    if 0 < len(key) <= _MOST_NAME_BYTES:
        return key
    return key[:_KEPT_NAME_BYTES] + b"\xff" + blake2b(key, digest_size=32).digest()


def index_key(expires_us: int, number: int) -> bytes:
    """Sorts records by expiry, then by age."""
    return _INDEX.pack(expires_us, number)


def write_record(
    name: bytes, key: bytes, payload: bytes, *, expires_us: int, number: int, sealing: SealingKey | None
) -> bytes:
    """A record's bytes."""
    body = b"".join((_KEY_SIZE.pack(len(key)), key, payload))
    if sealing is not None:
        head = _HEAD.pack(_VERSION, sealing.id, expires_us, number)
        return b"".join((head, _SEALED_CRC, sealing.seal(body, name + head)))
    head = _HEAD.pack(_VERSION, _IN_CLEAR, expires_us, number)
    return b"".join((head, _CRC.pack(zlib.crc32(body, zlib.crc32(name + head))), body))


def read_head(data: bytes) -> tuple[int, int] | None:
    """Expiry and number of a record, unchecked; None if it is none of this version."""
    if len(data) < HEAD_BYTES or data[0] != _VERSION:
        return None
    _, _, expires_us, number = _HEAD.unpack_from(data)
    return expires_us, number


def read_record(name: bytes, data: bytes, keys: KeyRing | None) -> Record:
    """Read a record.

    Raises:
        CorruptPayload: It is damaged, of another name or version, or sealed with a key that is not there.
    """
    if len(data) < HEAD_BYTES:
        raise CorruptPayload("shorter than a record's head")
    version, key_id, expires_us, _ = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise CorruptPayload(f"record of version {version}")
    head, stored = data[: _HEAD.size], data[HEAD_BYTES:]
    if key_id == _IN_CLEAR:
        (checksum,) = _CRC.unpack_from(data, _HEAD.size)
        if keys is not None or zlib.crc32(stored, zlib.crc32(name + head)) != checksum:
            raise CorruptPayload("record in clear, or checksum does not match")
        body: bytes | None = stored
    else:
        sealing = keys.get(key_id) if keys is not None else None
        body = sealing.open(stored, name + head) if sealing is not None else None
    if body is None or len(body) < _KEY_SIZE.size:
        raise CorruptPayload("sealed with another key, or damaged")
    end = _KEY_SIZE.size + _KEY_SIZE.unpack_from(body)[0]
    if end > len(body):
        raise CorruptPayload("the record's key runs past the end")
    try:
        key = str(body[_KEY_SIZE.size : end], "utf-8")
    except UnicodeDecodeError:
        raise CorruptPayload("the record's key is not UTF-8") from None
    return Record(key, body[end:], expires_us)
