"""Reads the bytes of a counted key's state, for listings and for the law that holds scripts and twin together.

The layout is that of `packing`.
"""

from __future__ import annotations

import struct
from typing import Final

from ratelimit_service.quota.redis.twin import Refusal
from ratelimit_service.quota.redis.twin_state import (
    NO_RESERVE,
    BucketEntry,
    Entry,
    FixedEntry,
    Reserve,
    SlidingEntry,
    State,
)

__all__ = ["read_state"]

_FORM: Final = 0xB1
_NEWEST_FORM: Final = 0xBF
_WITH_RESERVE: Final = 0x80
_HEAD: Final = struct.Struct("<BI7s")
_ENTRY: Final = struct.Struct("<8sBH7s")
_RECORD: Final = struct.Struct("<H6s")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def read_state(raw: bytes) -> State | Refusal:
    """The state; `NEWER` where a later release wrote it, `DAMAGED` where it is no state."""
    if len(raw) < _HEAD.size or not _FORM <= raw[0] <= _NEWEST_FORM:
        return Refusal.DAMAGED
    if raw[0] != _FORM:
        return Refusal.NEWER
    _, epoch, number = _HEAD.unpack_from(raw)
    entries, at = [], _HEAD.size
    while at < len(raw):
        if at + _ENTRY.size > len(raw):
            return Refusal.DAMAGED
        mark, kind, length, until = _ENTRY.unpack_from(raw, at)
        at += _ENTRY.size
        entry = _entry(mark, kind, _number(until), raw[at : at + length])
        if entry is None:
            return Refusal.DAMAGED
        entries.append(entry)
        at += length
    return State(epoch, _number(number), tuple(entries))


def _entry(mark: bytes, kind: int, until_us: int, body: bytes) -> Entry | None:
    reserve = NO_RESERVE
    if kind & _WITH_RESERVE:
        reserve = Reserve(_number(body[:4]), _number(body[4:11]))
        body = body[11:]
    match kind & ~_WITH_RESERVE:
        case 1 if len(body) == 13:
            return FixedEntry(mark, until_us, reserve, _number(body[:7]), _number(body[7:]))
        case 2 if len(body) >= 13 and len(body) % 8 == 5:
            return SlidingEntry(mark, until_us, reserve, _number(body[:7]), _parts(_number(body[:7]), body[13:]))
        case 3 if len(body) == 21:
            at_us, backlog, interval = _number(body[:7]), _number(body[7:14]), _number(body[14:20])
            return BucketEntry(mark, until_us, reserve, at_us, backlog, interval, body[20])
        case _:
            return None


def _parts(reached: int, records: bytes) -> tuple[tuple[int, int], ...]:
    parts = []
    for part, count in _RECORD.iter_unpack(records):
        ahead = (part - reached) % 65_536
        parts.append((reached + ahead - (65_536 if ahead >= 32_768 else 0), _number(count)))
    return tuple(parts)
