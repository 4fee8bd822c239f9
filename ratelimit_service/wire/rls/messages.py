"""Envoy's rate-limit request and response as plain values.

Source: envoy/service/ratelimit/v3/rls.proto and envoy/extensions/common/ratelimit/v3/ratelimit.proto.
Keys and values are bytes: Envoy forwards bytes that are no UTF-8, and they are limited like any other (DECISIONS 1).
"""

from __future__ import annotations

import enum

import msgspec


class Unit(enum.IntEnum):
    """`RateLimitResponse.RateLimit.Unit` (rls.proto)."""

    UNKNOWN = 0
    SECOND = 1
    MINUTE = 2
    HOUR = 3
    DAY = 4
    MONTH = 5
    YEAR = 6
    WEEK = 7


class Override(msgspec.Struct, frozen=True, gc=False):
    """A limit that the descriptor itself carries; `unit` as sent, unknown numbers included."""

    requests: int
    unit: int


class Descriptor(msgspec.Struct, frozen=True):
    """One descriptor of a request.

    Attributes:
        entries: (key, value) pairs in order; may be empty.
        override: A limit sent along, or None.
        hits: The descriptor's own hits_addend, None when unset (then the request's counts); clamped to uint64.
        is_negative: These hits are given back (field 4, DECISIONS 2).
    """

    entries: tuple[tuple[bytes, bytes], ...]
    override: Override | None = None
    hits: int | None = None
    is_negative: bool = False


class Request(msgspec.Struct, frozen=True):
    """A decoded `RateLimitRequest`; `hits_addend` 0 means 1."""

    domain: bytes
    descriptors: tuple[Descriptor, ...]
    hits_addend: int = 0


class CurrentLimit(msgspec.Struct, frozen=True):
    """`RateLimitResponse.RateLimit`."""

    requests: int
    unit: Unit
    name: str = ""


class Status(msgspec.Struct, frozen=True):
    """`RateLimitResponse.DescriptorStatus`.

    Attributes:
        over: OVER_LIMIT, else OK.
        limit: None: unset.
        remaining: uint32; saturated by the encoder.
        reset_s: Whole seconds, None: unset.
    """

    over: bool
    limit: CurrentLimit | None = None
    remaining: int = 0
    reset_s: int | None = None


class Verdict(msgspec.Struct, frozen=True):
    """A decided request.

    Attributes:
        over: The overall code is OVER_LIMIT.
        statuses: One per descriptor, in order.
        headers: `response_headers_to_add`.
        metadata: `dynamic_metadata`, a JSON-like mapping (google.protobuf.Struct), None: unset.
    """

    over: bool
    statuses: tuple[Status, ...]
    headers: tuple[tuple[str, str], ...] = ()
    metadata: dict[str, object] | None = None
