"""Our HPACK against the `hpack` package, and the law of remembered blocks (DECISIONS 25)."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.wire.http2 import huffman
from ratelimit_service.wire.http2.blocks import HeaderBlocks
from ratelimit_service.wire.http2.events import ConnectionLimits
from ratelimit_service.wire.http2.faults import ConnectionFault
from ratelimit_service.wire.http2.fields import Head, MalformedFields
from ratelimit_service.wire.http2.hpack import (
    Decoder,
    HeaderListTooLarge,
    HpackError,
    encode,
    read_integer,
    write_integer,
)
from support.http2_frames import CALL, block

# Few names and values, so that entries are found again; some longer than a small table.
NAMES = st.sampled_from([b":path", b"te", b"x-a", b"x-b", b"cookie", b"grpc-timeout"])
VALUES = st.one_of(st.sampled_from([b"", b"1", b"trailers", b"/a", b"x" * 90]), st.binary(max_size=8))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
BLOCKS = st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, None, 0, 64, 200, 4096])), max_size=8)


@given(BLOCKS)
def test_we_decode_what_the_package_encodes(blocks) -> None:
    """Any sequence of blocks, with Huffman and without, through any sizes of the table."""
    encoder, decoder = hpack.Encoder(), Decoder(most_list_bytes=10**6)
    for fields, uses_huffman, table_bytes in blocks:
        encoder.header_table_size = encoder.header_table_size if table_bytes is None else table_bytes

        assert decoder.decode(encoder.encode(fields, huffman=uses_huffman)) == fields


@given(FIELDS)
def test_the_package_decodes_what_we_encode(fields) -> None:
    """And so do we, without a change of any table."""
    data = encode(fields)

    assert [(bytes(name), bytes(value)) for name, value in hpack.Decoder().decode(data, raw=True)] == fields
    assert Decoder().decode(data) == fields


def _verdict(decode, data: bytes):
    try:
        return [(bytes(name), bytes(value)) for name, value in decode(data)]
    except (HpackError, HeaderListTooLarge, hpack.HPACKError, UnicodeDecodeError):
        return None


LEAD = [(b":method", b"POST"), (b":path", b"/a"), (b"x-a", b"1"), (b"x-b", b"2")]
LIKE_THE_LAST = st.lists(st.tuples(st.integers(0, 4), VALUES, st.booleans()), max_size=30)


@given(LIKE_THE_LAST, st.sampled_from([100, 200, 4096]))
@example([(4, b"%d" % number, True) for number in range(70)], 4096)
def test_blocks_that_begin_like_the_last_are_decoded_as_any(blocks, table_bytes: int) -> None:
    """A client's headers are alike: the same entries again and again, while others come in between and old ones go."""
    encoder, decoder = hpack.Encoder(), Decoder(most_list_bytes=10**6)
    encoder.header_table_size = table_bytes
    for shared, value, uses_huffman in blocks:
        fields = [*LEAD[:shared], (b"grpc-timeout", value)]

        assert decoder.decode(encoder.encode(fields, huffman=uses_huffman)) == fields


class _ForgetsTheLast(Decoder):
    """Looks at each block as if it were the first."""

    def decode(self, data: bytes):
        self._run = Decoder()._run
        return super().decode(data)


class _DoesNotCount(Decoder):
    """A planted bug: the same indices stand for the same fields, whatever was inserted."""

    def decode(self, data: bytes):
        self._run = self._run._replace(inserted=self._inserted)
        return super().decode(data)


class _ReadsWhatIsGone(Decoder):
    """A planted bug: whether the table still has the entries is not asked."""

    def decode(self, data: bytes):
        self._run = self._run._replace(reach=0)
        return super().decode(data)


INSERTS, EMPTIES = b"\x40\x01c\x01d", b"\x20\x3f\xe1\x1f"
OTHER, FILLS = b"\x40\x01e\x01f", b"\x40\x01g" + write_integer(4_060, 0x7F, 0) + b"x" * 4_060
"""Other entries, one of them so large that all others go."""
ALIKE = st.lists(
    st.lists(st.sampled_from([b"\x82", b"\xbe", b"\xbf", b"\xc0", INSERTS, b"\x40\x01e\x01f"]), max_size=5).map(
        b"".join
    )
    | st.sampled_from([EMPTIES + b"\xbe", EMPTIES, INSERTS * 64, INSERTS * 65]),
    max_size=8,
)


def _verdicts(kind: type[Decoder], blocks: list[bytes]) -> list[object]:
    """What a decoder says of each block, up to the first that it refuses."""
    decoder, said = kind(), []
    for data in blocks:
        said.append(_verdict(decoder.decode, data))
        if said[-1] is None:
            break
    return said


@given(ALIKE)
@example([INSERTS, b"\xbe", INSERTS * 64, b"\xfe", b"\xbe"])
@example([INSERTS, b"\xbe" + OTHER * 64, b"\xfe", b"\xbe" + OTHER * 64, b"\xff\x00", b"\xbe" + OTHER * 66, b"\xbe"])
def test_what_the_last_block_began_with_changes_no_verdict(blocks: list[bytes]) -> None:
    """Entries that went, that others pushed down, beyond what an index of one byte reaches too."""
    assert _verdicts(Decoder, blocks) == _verdicts(_ForgetsTheLast, blocks)


@pytest.mark.parametrize(
    ("mutant", "blocks"),
    [
        (_DoesNotCount, [INSERTS, b"\xbe" + OTHER, b"\xbe"]),
        (_ReadsWhatIsGone, [INSERTS, b"\xbe" + FILLS, b"\xbf"]),
    ],
)
def test_the_verdicts_show_each_planted_bug(mutant: type[Decoder], blocks: list[bytes]) -> None:
    """Another entry by the same index, and one that is gone."""
    assert _verdicts(mutant, blocks) != _verdicts(_ForgetsTheLast, blocks)
    assert _verdicts(Decoder, blocks) == _verdicts(_ForgetsTheLast, blocks)


GARBAGE = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from(
            [
                *(b"\x82", b"\x41\x01a", b"\x00\x01a\x01b", b"\x40\x01c\x01d"),
                *(b"\xbe", b"\xbf", b"\x20", b"\x3f\x09"),
            ]
        ),
        max_size=8,
    ).map(b"".join),
)


@given(st.lists(GARBAGE, max_size=4))
@example([b"\x20\x3f\x09\x40\x01c\x01d", b"\xbe"])
def test_garbage_is_an_error_or_what_the_package_reads(blocks: list[bytes]) -> None:
    """Nothing but our own errors comes out, and where both decode they agree."""
    ours, theirs = Decoder(most_list_bytes=10**6), hpack.Decoder(max_header_list_size=10**6)
    for data in blocks:
        mine, other = _verdict(ours.decode, data), _verdict(lambda each: theirs.decode(each, raw=True), data)
        if mine is None or other is None:
            return
        assert mine == other


@given(st.binary(max_size=60))
def test_huffman_goes_there_and_back(text: bytes) -> None:
    """Any bytes."""
    assert huffman.decode(huffman.encode(text)) == text


@given(st.integers(0, 2**35), st.sampled_from([0x0F, 0x1F, 0x3F, 0x7F]))
@example(0x7F, 0x7F)
@example(0x0E, 0x0F)
def test_integers_go_there_and_back(value: int, mask: int) -> None:
    """In any prefix."""
    data = write_integer(value, mask, 0)

    assert read_integer(data + b"\xff", 0, mask) == (value, len(data))


class _RemembersAll(HeaderBlocks):
    """A planted bug: a block that changes the table is remembered like any other."""

    def head(self, data: bytes) -> Head:
        known = self.memo.get(data)
        if known is None:
            known = self.memo[data] = self.reader.read(self.decode(data))
        return known


class _NeverForgets(HeaderBlocks):
    """A planted bug: what was remembered stays when the table changes."""

    def decode(self, data: bytes):
        kept = dict(self.memo)
        try:
            return super().decode(data)
        finally:
            self.memo.update(kept)


_REST = block(*(field for field in CALL if field[0] != b":path"))
_ONE, _TWO = (block((b":path", path), indexed=True) + _REST for path in (b"/a", b"/b"))
_NEWEST, _SECOND = b"\xbe" + _REST, b"\xbf" + _REST
# Blocks that put a path into the table, name its newest entry, empty it, or leave it alone.
STEPS = st.lists(
    st.sampled_from([_ONE, _TWO, _NEWEST, _SECOND, b"\x20\x3f\xe1\x1f" + block(*CALL), block(*CALL)]), max_size=8
)


def _paths(blocks: HeaderBlocks, data: list[bytes]) -> list[bytes | None]:
    found: list[bytes | None] = []
    for each in data:
        try:
            found.append(blocks.head(each).shape.path)
        except (ConnectionFault, MalformedFields):
            found.append(None)
    return found


def _law(kind: type[HeaderBlocks], data: list[bytes]) -> bool:
    """Whether what is remembered stands for what a decoder without memory reads."""
    return _paths(kind(ConnectionLimits(memo_blocks=4)), data) == _paths(
        HeaderBlocks(ConnectionLimits(memo_block_bytes=0)), data
    )


@given(STEPS)
def test_what_is_remembered_is_what_would_be_decoded(data: list[bytes]) -> None:
    """Whatever changes the table between two equal blocks."""
    assert _law(HeaderBlocks, data)


@pytest.mark.parametrize(
    ("mutant", "data"),
    [(_RemembersAll, [_ONE, _ONE, _SECOND]), (_NeverForgets, [_ONE, _NEWEST, _TWO, _NEWEST])],
)
def test_the_law_finds_each_planted_bug(mutant: type[HeaderBlocks], data: list[bytes]) -> None:
    """A table that lacks an entry, and an entry that has become another."""
    assert not _law(mutant, data)


@given(
    st.one_of(
        st.binary(min_size=10, max_size=60),
        st.text(st.characters(max_codepoint=126)).map(str.encode).map(huffman.encode),
    )
)
@example(huffman.encode(b"0" * 16) + b"\xff")
@example(huffman.encode(b"a" * 20 + b"\n" + b"b" * 20))
def test_zlib_decodes_what_the_table_decodes(data: bytes) -> None:
    """The same text or the same refusal, whatever was decoded before, long codes and bad padding included."""
    texts = []
    for decode in (huffman.decode, huffman.decode_by_table):
        try:
            texts.append(decode(data))
        except huffman.BadHuffman:
            texts.append(b"refused")

    assert texts[0] == texts[1]
