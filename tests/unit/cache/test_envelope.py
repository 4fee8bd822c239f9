"""The envelope's bytes, one by one, and what it refuses."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from ratelimit_service.cache.compression import Method, Packed
from ratelimit_service.cache.entry import NEVER_US
from ratelimit_service.cache.envelope import Envelope, pack, unpack
from ratelimit_service.cache.errors import CorruptPayload, PayloadTooLarge

ENVELOPE = Envelope(
    codec=1,
    packed=Packed(Method.ZSTD, 0x01020304, 5, b"packd"),
    expires_us=1_700_000_000_000_000,
    soft_expires_us=1_699_999_999_000_000,
    tags=(("user:7", 3), ("é", 2**63)),
    fence=42,
    cost_us=1500,
)

GOLDEN = bytes.fromhex(
    "5447 01 00 0000000000000000"  # the checksum is put in by `resealed`
    "01 02 01020304 0000000000000005"
    "00060a24181e4000 00060a24180efdc0"
    "000000000000002a 000005dc 0002"
    "0006 0000000000000003 757365723a37"
    "0002 8000000000000000 c3a9"
    "7061636b64"
)


def resealed(data: bytes) -> bytes:
    """The same bytes with a checksum that matches: what a writer of bad envelopes would send."""
    return data[:4] + blake2b(data[12:], digest_size=8).digest() + data[12:]


def test_version_1_is_these_bytes() -> None:
    """Replicas of different versions share one Redis, so the layout is fixed."""
    assert pack(ENVELOPE) == resealed(GOLDEN)
    assert unpack(resealed(GOLDEN)) == ENVELOPE


def test_an_envelope_without_anything_is_56_bytes() -> None:
    """The overhead of a value is known."""
    bare = Envelope(codec=3, packed=Packed.stored(b""))

    assert len(pack(bare)) == 56
    assert unpack(pack(bare)) == bare
    assert unpack(pack(bare)).expires_us == NEVER_US


def test_a_negative_entry_says_so() -> None:
    """Absence is a flag, not a value."""
    absent = Envelope(codec=1, packed=Packed.stored(b""), absent=True)

    assert unpack(pack(absent)).absent


def test_a_cost_beyond_the_field_is_the_greatest_it_holds() -> None:
    """A load of more than 71 minutes is as dear as can be said."""
    assert unpack(pack(Envelope(codec=1, packed=Packed.stored(b""), cost_us=2**40))).cost_us == 2**32 - 1


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(codec=256, packed=Packed.stored(b"")),
        Envelope(codec=1, packed=Packed.stored(b""), tags=(("x" * 65_536, 1),)),
        Envelope(codec=1, packed=Packed.stored(b""), fence=-1),
    ],
)
def test_a_field_that_does_not_fit_is_refused(envelope: Envelope) -> None:
    """Nothing is cut short in silence."""
    with pytest.raises(ValueError, match="out of range"):
        pack(envelope)


def with_byte(offset: int, value: int) -> bytes:
    """The golden envelope with one byte replaced, sealed again."""
    data = bytearray(pack(ENVELOPE))
    data[offset] = value
    return resealed(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shorter"),
        (pack(ENVELOPE)[:55], "shorter"),
        (with_byte(0, 0x55), "no envelope"),
        (with_byte(2, 2), "version 2"),
        (with_byte(3, 2), "flags"),
        (with_byte(13, 9), "method 9"),
        (with_byte(55, 200), "past the end"),
        (with_byte(56, 200), "past the end"),
        (with_byte(66, 0xFF), "UTF-8"),
        (pack(ENVELOPE)[:-1], "checksum"),
        (pack(ENVELOPE) + b"x", "checksum"),
    ],
)
def test_what_is_no_envelope_is_corrupt(data: bytes, reason: str) -> None:
    """Each defect is found and named, also where the checksum matches."""
    with pytest.raises(CorruptPayload, match=reason):
        unpack(data)


def test_a_declared_bomb_is_refused_before_anything_is_unpacked() -> None:
    """A payload that says to be larger than the cap is an error of its own."""
    bomb = pack(Envelope(codec=1, packed=Packed(Method.ZSTD, 0, 10**12, b"tiny")))

    with pytest.raises(PayloadTooLarge) as caught:
        unpack(bomb, max_unpacked_bytes=1000)

    assert (caught.value.declared_bytes, caught.value.max_bytes) == (10**12, 1000)
