"""Edges of RFC 7541 that no honest encoder reaches."""

from __future__ import annotations

import pytest

from ratelimit_service.wire.http2 import huffman
from ratelimit_service.wire.http2.blocks import HeaderBlocks
from ratelimit_service.wire.http2.events import ConnectionLimits
from ratelimit_service.wire.http2.hpack import (
    Decoder,
    HeaderBomb,
    HeaderListTooLarge,
    HpackError,
    encode,
    read_integer,
    write_integer,
)
from support.http2_frames import CALL, block

BROKEN = [
    ("index 0", b"\x80"),
    ("an index past the static table", b"\xbe"),
    ("a name's index past the table", b"\x7f\x00"),
    ("an integer without an end", b"\xff"),
    ("an integer that is too long", b"\xff" + b"\x80" * 5 + b"\x00"),
    ("a literal without a value", b"\x41"),
    ("a string longer than its block", b"\x41\x05abc"),
    ("a string length without an end", b"\x00\x7f"),
    ("Huffman with EOS", b"\x41\x84\xff\xff\xff\xff"),
    ("Huffman with 8 bits of padding", b"\x41\x82\x1f\xff"),
    ("Huffman padded with zeros", b"\x41\x81\x00"),
    ("a table larger than advertised", b"\x3f\xe2\x1f"),
    ("a size update after a field", b"\x82\x20"),
    ("a name by an index of three bytes", b"\x7f\x80\x01\x01a"),
]


@pytest.mark.parametrize(("name", "data"), BROKEN, ids=[name for name, _ in BROKEN])
def test_a_broken_block_is_an_error(name: str, data: bytes) -> None:
    """HpackError, whatever is wrong."""
    with pytest.raises(HpackError):
        Decoder().decode(data)


@pytest.mark.parametrize(("value", "data"), [(10, b"\x0a"), (1337, b"\x1f\x9a\x0a"), (31, b"\x1f\x00"), (30, b"\x1e")])
def test_integers_are_those_of_the_rfc(value: int, data: bytes) -> None:
    """RFC 7541 §C.1 and the edges of the prefix."""
    assert write_integer(value, 0x1F, 0) == data
    assert read_integer(data, 0, 0x1F) == (value, len(data))


def test_requests_of_the_rfc_decode_with_one_table() -> None:
    """RFC 7541 §C.4: three requests with Huffman coding."""
    decoder = Decoder()
    first = decoder.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))
    second = decoder.decode(bytes.fromhex("828684be5886a8eb10649cbf"))
    third = decoder.decode(bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"))

    assert first[-1] == (b":authority", b"www.example.com")
    assert second[-2:] == [(b":authority", b"www.example.com"), (b"cache-control", b"no-cache")]
    assert third[-2:] == [(b":authority", b"www.example.com"), (b"custom-key", b"custom-value")]


def test_the_table_evicts_its_oldest() -> None:
    """RFC 7541 §4.4, also for a field that is larger than the table and for a table that shrinks."""
    decoder = Decoder(table_bytes=100)
    decoder.decode(block((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), indexed=True))

    assert decoder.decode(b"\xbe\xbf") == [(b"c", b"3"), (b"b", b"2")]
    assert decoder.decode(b"\x3f\x09\xbe") == [(b"c", b"3")]
    with pytest.raises(HpackError):
        decoder.decode(b"\xbf")
    assert decoder.decode(block((b"long", 100 * b"x"), indexed=True)) == [(b"long", 100 * b"x")]
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


def test_the_generation_counts_changes_only() -> None:
    """A size update to the size in force and fields outside the table change nothing."""
    decoder = Decoder()
    decoder.decode(b"\x3f\xe1\x1f" + block(*CALL))
    unchanged = decoder.generation
    decoder.decode(b"\x20" + block((b"a", b"b"), indexed=True))

    assert unchanged == 0
    assert decoder.generation == 2


def test_a_list_that_is_too_large_leaves_the_table_in_step() -> None:
    """At the limit it is taken; one byte more is refused after the block has done its work."""
    decoder = Decoder(most_list_bytes=2 * 34)
    at_limit = decoder.decode(block((b"a", b"1"), (b"b", b"2")))
    with pytest.raises(HeaderListTooLarge):
        decoder.decode(block((b"a", b"1"), (b"c", b"34"), indexed=True))

    assert len(at_limit) == 2
    assert decoder.decode(b"\xbe") == [(b"c", b"34")]


def test_a_bomb_is_not_read_to_its_end() -> None:
    """More than four times the largest list."""
    with pytest.raises(HeaderBomb):
        Decoder(most_list_bytes=100).decode(b"\x82" * 20)


def test_a_size_update_may_not_hide_behind_a_field_that_was_too_large() -> None:
    """The first field counts even when it is not kept."""
    with pytest.raises(HpackError, match="after a field"):
        Decoder(most_list_bytes=30).decode(b"\x82\x20")


def test_encode_uses_the_static_table_and_literals() -> None:
    """A whole entry, a name of the table, neither; nothing changes a decoder's table."""
    fields = [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"0"),
        (b"x" * 200, b"y" * 500),
    ]
    decoder = Decoder()

    assert decoder.decode(encode(fields)) == fields
    assert decoder.generation == 0
    assert encode(fields[:1]) == b"\x88"


def test_huffman_codes_every_byte() -> None:
    """There and back, each byte alone and all at once."""
    assert [huffman.decode(huffman.encode(bytes((byte,)))) for byte in range(256)] == [
        bytes((byte,)) for byte in range(256)
    ]
    assert huffman.decode(huffman.encode(bytes(range(256)))) == bytes(range(256))
    assert huffman.decode(b"") == b""


def test_a_block_that_changes_the_table_is_never_remembered() -> None:
    """It is decoded each time, and what was remembered before it is dropped (DECISIONS 25)."""
    blocks = HeaderBlocks(ConnectionLimits())
    plain, indexing = block(*CALL), block(*CALL, (b"x", b"y"), indexed=True)
    first = blocks.head(plain)
    again = blocks.head(plain)
    remembered = dict(blocks.memo)
    blocks.head(indexing)

    assert again is first
    assert remembered == {plain: first}
    assert blocks.memo == {}
    assert blocks.head(plain) is not first
