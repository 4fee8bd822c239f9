"""Codecs, compression and envelopes: what goes in comes out, and nothing wrong ever does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from ratelimit_service.cache.compression import CompressionEngine, Method, Packed
from ratelimit_service.cache.dictionaries import train
from ratelimit_service.cache.entry import NEVER_US
from ratelimit_service.cache.envelope import Envelope, pack, unpack
from ratelimit_service.cache.errors import CorruptPayload
from ratelimit_service.cache.serialisers import Codec, JsonCodec, MsgpackCodec, RawCodec

# Each law is held for several codecs or engines.
fewer = settings(max_examples=settings.default.max_examples // 4)

texts = st.text(max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=6,
)
# Runs of few bytes compress, and damage to them is felt.
raws = st.binary(max_size=40) | st.builds(
    lambda part, times: part * times, st.binary(min_size=1, max_size=9), st.integers(1, 90)
)

packeds = st.builds(
    Packed,
    st.sampled_from(Method),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**20),
    st.binary(max_size=20),
)
envelopes = st.builds(
    Envelope,
    codec=st.integers(0, 255),
    packed=packeds,
    expires_us=st.sampled_from([0, 1, 2**50, NEVER_US]),
    soft_expires_us=st.sampled_from([-1, 0, 2**50, NEVER_US]),
    tags=st.lists(st.tuples(texts, st.integers(0, 2**64 - 1)), max_size=3).map(tuple),
    fence=st.sampled_from([0, 1, 2**64 - 1]),
    cost_us=st.sampled_from([0, 1, 2**32 - 1]),
    absent=st.booleans(),
)

DICTIONARY = train([b'{"id": %d, "name": "user-%d", "roles": ["reader", "writer"]}' % (n, n % 100) for n in range(400)])
ENGINES = {
    "stored": CompressionEngine(Method.STORED),
    "gzip": CompressionEngine(Method.GZIP, threshold_bytes=16),
    "zstd": CompressionEngine(Method.ZSTD, threshold_bytes=16),
    "dictionary": CompressionEngine(Method.ZSTD, threshold_bytes=16, dictionaries=[DICTIONARY]),
}


@pytest.mark.parametrize("codec", [MsgpackCodec[object](), JsonCodec[object]()])
@fewer
@given(value=values)
def test_codecs_give_back_what_they_were_given(codec: Codec[object], value: object) -> None:
    """decode(encode(x)) = x."""
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize("codec", [MsgpackCodec[object](), JsonCodec[object](), MsgpackCodec(int), RawCodec()])
@given(data=st.binary(max_size=60))
@example(data=b"\x81" * 60)
@example(data=b"[" * 5_000)
@example(data=b"\xc7\xff\xff")
@example(data=b"\xdd\xff\xff\xff\xff")
def test_codecs_read_anything_or_call_it_corrupt(codec: Codec[object], data: bytes) -> None:
    """Whatever the bytes are, there is a value or the cache's own error."""
    try:
        codec.decode(data)
    except CorruptPayload as error:
        assert error.reason  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize("engine", ENGINES)
@fewer
@given(data=raws)
def test_engines_give_back_what_they_were_given(engine: str, data: bytes) -> None:
    """Alone and in an envelope; nothing grows but by its header."""
    engines = ENGINES[engine]
    packed = engines.pack(data)

    assert engines.unpack(packed) == data
    assert engines.decompress(engines.compress(data)) == data
    assert len(packed.data) <= len(data)


def damaged(data: bytes, at: int, how: str, byte: int) -> bytes:
    """The data with a byte changed, put in, taken out, or cut off there."""
    at %= len(data)
    match how:
        case "change":
            return data[:at] + bytes([data[at] ^ (byte or 1)]) + data[at + 1 :]
        case "insert":
            return data[:at] + bytes([byte]) + data[at:]
        case "drop":
            return data[:at] + data[at + 1 :]
        case _:
            return data[:at]


damages = {
    "at": st.integers(0, 300),
    "how": st.sampled_from(["change", "insert", "drop", "cut"]),
    "byte": st.integers(0, 255),
}


@pytest.mark.parametrize("engine", ENGINES)
@fewer
@given(data=raws, **damages)
def test_a_damaged_frame_is_never_wrong_bytes(engine: str, data: bytes, at: int, how: str, byte: int) -> None:
    """One byte anywhere: the frame is corrupt."""
    with pytest.raises(CorruptPayload):
        ENGINES[engine].decompress(damaged(ENGINES[engine].compress(data), at, how, byte))


@pytest.mark.parametrize("engine", ENGINES)
@fewer
@given(packed=packeds)
def test_hostile_payloads_raise_or_are_of_the_size_they_say(engine: str, packed: Packed) -> None:
    """Without any checksum to help, a payload is refused or has its declared size."""
    try:
        data = ENGINES[engine].unpack(packed)
    except CorruptPayload:
        return
    assert len(data) == packed.raw_bytes


def holds_the_envelope_law(
    packer: Callable[[Envelope], bytes], envelope: Envelope, at: int, how: str, byte: int
) -> None:
    """What is packed comes back, and damage is found."""
    data = packer(envelope)
    assert unpack(data) == envelope
    with pytest.raises(CorruptPayload):
        unpack(damaged(data, at, how, byte))


@settings(max_examples=settings.default.max_examples // 2)
@given(envelope=envelopes, **damages)
def test_envelopes_come_back_or_are_corrupt(envelope: Envelope, at: int, how: str, byte: int) -> None:
    """unpack(pack(x)) = x, and one byte anywhere makes it corrupt."""
    holds_the_envelope_law(pack, envelope, at, how, byte)


@given(data=st.binary(max_size=120))
def test_noise_is_no_envelope(data: bytes) -> None:
    """Nor is it with the right beginning."""
    for noise in (data, b"TG\x01\x00" + data):
        with pytest.raises(CorruptPayload):
            unpack(noise)


def forgets_the_fence(envelope: Envelope) -> bytes:
    """Bug: the fence is not written."""
    return pack(Envelope(**{name: getattr(envelope, name) for name in envelope.__struct_fields__ if name != "fence"}))


def leaves_the_header_unchecked(envelope: Envelope) -> bytes:
    """Bug: trailing bytes are not covered."""
    return pack(envelope)[:-1] if envelope.packed.data else pack(envelope)


@pytest.mark.parametrize("mutant", [forgets_the_fence, leaves_the_header_unchecked])
def test_envelope_law_catches_planted_bug(mutant: Callable[[Envelope], bytes]) -> None:
    """Each planted bug breaks the law."""

    @settings(max_examples=500, database=None, derandomize=True, report_multiple_bugs=False, phases=[Phase.generate])
    @given(envelope=envelopes, **damages)
    def law(envelope: Envelope, at: int, how: str, byte: int) -> None:
        holds_the_envelope_law(mutant, envelope, at, how, byte)

    with pytest.raises((AssertionError, CorruptPayload)):
        law()
