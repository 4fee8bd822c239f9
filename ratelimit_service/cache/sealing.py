"""From values to the bytes that Redis and the disk keep, and back, with times turned between their two clocks.

In memory times are of a clock that only this machine has; in an envelope they are of the wall, which replicas share as
well as their clocks agree.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.cache.coherence import Stamp
from ratelimit_service.cache.compression import CompressionEngine
from ratelimit_service.cache.entry import NEVER_US
from ratelimit_service.cache.envelope import Envelope, pack, unpack
from ratelimit_service.cache.errors import CorruptPayload
from ratelimit_service.cache.serialisers import Codec

__all__ = ["ABSENT", "Absent", "Held", "Sealer", "Term"]

T = TypeVar("T")


class Absent(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""In place of a value: the source has none, and that is remembered."""

_VERSION_TAG: Final = ""
"""The tag under which an envelope keeps the newest invalidation by prefix from before its load."""


class Term(msgspec.Struct, frozen=True, gc=False):
    """How long a value is good, by this machine's clock.

    Attributes:
        fresh_until_us: From when it is loaded anew.
        expires_us: From when it is not served, not even while loading fails; at least `fresh_until_us`.
        cost_us: How long its load took.
    """

    fresh_until_us: int
    expires_us: int
    cost_us: int = 0


class Held(msgspec.Struct, frozen=True, gc=False):
    """A value with what tells whether it may be served.

    Attributes:
        value: The value, or `ABSENT`.
        stamp: Whether it is still what Redis has.
        term: How long it is good.
    """

    value: Any
    stamp: Stamp
    term: Term


class Sealer(Generic[T]):
    """Writes and reads payloads of one cache.

    Args:
        codec: Turns values into bytes.
        engine: Packs these.
        sample: Is shown each value's bytes before they are packed.
    """

    def __init__(self, codec: Codec[T], engine: CompressionEngine, sample: Callable[[bytes], None]) -> None:
        self._codec = codec
        self._engine = engine
        self._sample = sample

    def seal(self, held: Held, now: Instant, *, fence: int = 0) -> bytes:
        """The payload of a value.

        Raises:
            UnencodableValue: The codec cannot write it.
        """
        absent = held.value is ABSENT
        data = b"" if absent else self._codec.encode(held.value)
        if data:
            self._sample(data)
        skew_us = now.wall_us - now.boot_us
        stamp, term = held.stamp, held.term
        envelope = Envelope(
            codec=self._codec.number,
            packed=self._engine.pack(data),
            expires_us=min(NEVER_US, term.expires_us + skew_us),
            soft_expires_us=min(NEVER_US, term.fresh_until_us + skew_us),
            tags=((_VERSION_TAG, stamp.version), *stamp.tags),
            fence=fence,
            cost_us=term.cost_us,
            absent=absent,
        )
        return pack(envelope)

    def open(self, payload: bytes, now: Instant, *, epoch: int, filled_us: int) -> Held:
        """The value of a payload.

        Args:
            payload: As it was read.
            now: Now.
            epoch: The epoch in which it was read, or `UNWATCHED`.
            filled_us: When the read began.

        Raises:
            CorruptPayload: It is damaged, or of another codec or a later release.
            UnknownDictionary: It can be read once that dictionary is known.
        """
        envelope = unpack(payload)
        if envelope.codec != self._codec.number:
            raise CorruptPayload(f"codec {envelope.codec}, not {self._codec.number}")
        value = ABSENT if envelope.absent else self._codec.decode(self._engine.unpack(envelope.packed))
        skew_us = now.wall_us - now.boot_us
        tags = envelope.tags
        version = 0
        if tags and tags[0][0] == _VERSION_TAG:
            version, tags = tags[0][1], tags[1:]
        term = Term(envelope.soft_expires_us - skew_us, envelope.expires_us - skew_us, envelope.cost_us)
        return Held(value, Stamp(epoch, filled_us, version, tags), term)
