"""What Redis and the disk give back, fuzzed: envelopes, frames and records, from any bytes.

The oracle is the writer: what is read must be what would be written, byte for byte. A first byte says whether the
checksum is made right, so that the fuzzer gets past it as whoever may write to the store does.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b
from typing import Final

from ratelimit_service.cache import envelope
from ratelimit_service.cache.compression import CompressionEngine, Method
from ratelimit_service.cache.errors import CorruptPayload
from ratelimit_service.cache.l3 import KeyRing, SealingKey, record
from ratelimit_service.cache.serialisers import MsgpackCodec

MOST_BYTES: Final = 4_096
ENGINE: Final = CompressionEngine(Method.ZSTD, threshold_bytes=0, max_raw_bytes=MOST_BYTES)
CODEC: Final = MsgpackCodec[object]()
KEYS: Final = KeyRing([SealingKey(b"k" * 32)])


def fuzz_envelope(data: bytes) -> None:
    """An envelope, its payload and its value; or, by the first byte, a frame of the engine alone."""
    if not data:
        return
    how, rest = data[0], data[1:]
    if how & 2:
        _frame(rest[:16] + zlib.crc32(rest[20:], zlib.crc32(rest[:16])).to_bytes(4, "big") + rest[20:])
        return
    if how & 1:
        rest = rest[:4] + blake2b(rest[12:], digest_size=8).digest() + rest[12:]
    try:
        found = envelope.unpack(rest, max_unpacked_bytes=MOST_BYTES)
    except CorruptPayload:
        return
    assert envelope.pack(found) == rest, rest
    try:
        raw = ENGINE.unpack(found.packed)
    except CorruptPayload:
        return
    assert len(raw) == found.packed.raw_bytes <= MOST_BYTES
    try:
        CODEC.decode(raw)
    except CorruptPayload:
        return


def _frame(data: bytes) -> None:
    try:
        raw = ENGINE.decompress(data)
    except CorruptPayload:
        return
    assert len(raw) == int.from_bytes(data[8:16], "big") <= MOST_BYTES
    assert ENGINE.decompress(ENGINE.compress(raw)) == raw


def fuzz_record(data: bytes) -> None:
    """A record of the disk level: how, a name led by its length, the record; in clear or, where `how` says so, sealed.

    Of a sealed one the fuzzer writes what is sealed, as it cannot make the seal.
    """
    if len(data) < 2:
        return
    how, size = data[:2]
    name, rest = data[2 : 2 + size], data[2 + size :]
    head, body = rest[:21], rest[25:]
    keys = KEYS if how & 2 else None
    if how & 4:
        head = head[:1] + KEYS.current.id + head[5:]
        rest = head + bytes(4) + KEYS.current.seal(body, name + head)
    elif how & 1:
        rest = head + zlib.crc32(body, zlib.crc32(name + head)).to_bytes(4, "big") + body
    parts = record.read_head(rest)
    try:
        found = record.read_record(name, rest, keys)
    except CorruptPayload:
        return
    assert parts is not None
    assert parts[0] == found.expires_us
    sealing = KEYS.current if keys is not None else None
    written = record.write_record(
        name, found.key.encode(), found.payload, expires_us=found.expires_us, number=parts[1], sealing=sealing
    )
    if sealing is None:
        assert written == rest, rest
    else:
        assert record.read_record(name, written, keys) == found
