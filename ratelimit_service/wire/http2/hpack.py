"""Header compression (RFC 7541): a decoder that is fast on blocks that vary, and an encoder without state.

The decoder counts every change of its table in `generation`. A caller may keep a decoded block only
together with the generation before and after it: equal means that the block did not touch the table,
and it stands for the same fields while `generation` stays the same.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from ratelimit_service.wire.http2 import huffman
from ratelimit_service.wire.http2.static_table import BY_FIELD, BY_NAME, STATIC, STATIC_LENGTH

Field = tuple[bytes, bytes]

ENTRY_OVERHEAD_BYTES: Final = 32
"""What each table entry and each listed field costs beyond its text (RFC 7541 §4.1, RFC 9113 §6.5.2)."""
_BOMB_FACTOR: Final = 4
"""A list that is this many times larger than allowed is not even read to its end."""
_MOST_INTEGER_BYTES: Final = 5
"""Continuation bytes of an integer: 35 bits, more than any length or index that is allowed."""


class HpackError(Exception):
    """A block that cannot be decoded; the connection ends with COMPRESSION_ERROR (RFC 9113 §4.3)."""


class HeaderListTooLarge(Exception):
    """The fields are larger than the advertised maximum; the block was decoded and the table is in step.

    The stream is refused, the connection goes on.
    """


class HeaderBomb(HpackError):
    """The fields are so large that decoding stopped: few bytes stand for very many. The connection cannot go on."""


def read_integer(data: bytes, at: int, prefix_mask: int) -> tuple[int, int]:
    """The integer that begins in the low bits of `data[at]`, and where the next item begins (RFC 7541 §5.1).

    Raises:
        HpackError: It is cut short or longer than any value allowed here.
    """
    value = data[at] & prefix_mask
    at += 1
    if value < prefix_mask:
        return value, at
    shift = 0
    for byte in data[at : at + _MOST_INTEGER_BYTES]:
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise HpackError("an integer is cut short or too long")


class _Run(NamedTuple):
    """The indexed fields that a block began with, of one byte each.

    Attributes:
        indices: As they stood in the block.
        reach: The greatest index of the dynamic table among them, 0: none is.
        inserted: Entries that had been inserted before the block: an index names the entry that is so far from the
            newest, and grows by one with each that comes.
        fields: What they stand for.
        listed_bytes: Size of these fields.
    """

    indices: bytes
    reach: int
    inserted: int
    fields: list[Field]
    listed_bytes: int


_NO_RUN: Final = _Run(b"", 0, 0, [], 0)
_MOST_ONE_BYTE_INDEX: Final = 0x7E


def _run_of(block: bytes, fields: list[Field], inserted: int) -> _Run:
    """What `block`, which stands for `fields`, begins with."""
    indices = block[: len(block) - len(block.lstrip(_ONE_BYTE_INDICES))]
    reach = max([byte & 0x7F for byte in indices if byte & 0x7F > STATIC_LENGTH], default=0)
    begun = fields[: len(indices)]
    return _Run(indices, reach, inserted, begun, sum(map(_listed_bytes, begun)))


def _grown(count: int) -> bytes:
    """What turns one-byte indices into those of the same entries after `count` more; 0: it takes more bytes then."""
    dynamic = 0x80 | STATIC_LENGTH + 1
    return bytes(byte if byte < dynamic else byte + count if byte + count < 0xFF else 0 for byte in range(256))


_ONE_BYTE_INDICES: Final = bytes(range(0x81, 0xFF))
_GROWN: Final = tuple(_grown(count) for count in range(_MOST_ONE_BYTE_INDEX - STATIC_LENGTH))


def _listed_bytes(field: Field) -> int:
    return len(field[0]) + len(field[1]) + ENTRY_OVERHEAD_BYTES


_STATIC_SIZES: Final = tuple(map(_listed_bytes, STATIC))


class Decoder:
    """Decodes the header blocks of one connection, in order.

    Attributes:
        generation: Counts changes of the dynamic table.
    """

    __slots__ = (
        "_entries", "_inserted", "_most_list_bytes", "_run", "_size_bytes", "_size_limit_bytes", "_sizes",
        "_table_bytes", "generation",
    )  # fmt: skip

    def __init__(self, *, table_bytes: int = 4096, most_list_bytes: int = 16_384) -> None:
        """Begin with an empty table.

        Args:
            table_bytes: The SETTINGS_HEADER_TABLE_SIZE that we advertise.
            most_list_bytes: The SETTINGS_MAX_HEADER_LIST_SIZE that we advertise; a field costs 32 more than its text.
        """
        self.generation = 0
        # Newest last, so that an insertion moves nothing; index 62 is the last one.
        self._entries: deque[Field] = deque()
        self._sizes: deque[int] = deque()
        self._inserted = 0
        self._size_bytes = 0
        self._size_limit_bytes = table_bytes
        self._table_bytes = table_bytes
        self._most_list_bytes = most_list_bytes
        self._run = _NO_RUN

    def decode(self, block: bytes) -> list[Field]:
        """The fields of one complete block.

        Raises:
            HpackError: The block breaks the format, or is a `HeaderBomb`; the connection cannot go on.
            HeaderListTooLarge: The fields are too large; the table is in step all the same.
        """
        try:
            return self._decode(block)
        except IndexError:
            raise HpackError("the block is cut short") from None
        except huffman.BadHuffman as bad:
            raise HpackError(str(bad)) from None

    def _decode(self, block: bytes) -> list[Field]:
        entries, sizes, most_bytes = self._entries, self._sizes, self._most_list_bytes
        inserted_before = inserted = self._inserted
        table_bytes = self._size_bytes
        # Where the last block began with fields of the table, this one begins with the same: their indices have grown
        # by as many entries as came in between.
        indices, reach, run_inserted, run_fields, run_bytes = self._run
        grown = inserted - run_inserted
        reach += grown
        fields: list[Field] = []
        at = listed_bytes = 0
        if grown < len(_GROWN) and reach <= _MOST_ONE_BYTE_INDEX and reach - STATIC_LENGTH <= len(entries):
            if grown:
                indices = indices.translate(_GROWN[grown])
            if block.startswith(indices):
                fields, at, listed_bytes = run_fields.copy(), len(indices), run_bytes
        alike = at
        add, end = fields.append, len(block)
        while at < end:
            first = block[at]
            if first > 0x80:  # indexed (§6.1)
                if first == 0xFF:
                    index, at = read_integer(block, at, 0x7F)
                else:
                    index, at = first & 0x7F, at + 1
                if index <= STATIC_LENGTH:
                    field, size = STATIC[index - 1], _STATIC_SIZES[index - 1]
                elif index - STATIC_LENGTH <= len(entries):
                    field, size = entries[STATIC_LENGTH - index], sizes[STATIC_LENGTH - index]
                else:
                    raise HpackError(f"index {index} is not in the table")
            elif first & 0xE0 == 0x20:  # size update (§6.3)
                at = self._resize(block, at, first_item=not listed_bytes)
                table_bytes = self._size_bytes
                continue
            elif first == 0x80:
                raise HpackError("index 0 is not in the table")
            else:  # a literal: with indexing (§6.2.1), without (§6.2.2), never (§6.2.3)
                mask = 0x3F if first >= 0x40 else 0x0F
                index = first & mask
                at += 1
                if index == mask:
                    # As `read_integer`: names of the table nearly always take one byte more.
                    index += block[at]
                    at += 1
                    if index >= mask + 0x80:
                        index, at = read_integer(block, at - 2, mask)
                if index == 0:
                    name, at = self._string(block, at)
                else:
                    name = (STATIC[index - 1] if index <= STATIC_LENGTH else self._entry(index))[0]
                # As `_string` for short ones: every block that varies has a value or two of them.
                size = block[at] & 0x7F
                stop = at + 1 + size
                if size == 0x7F or stop > end:
                    value, at = self._string(block, at)
                else:
                    value = block[at + 1 : stop]
                    if block[at] >= 0x80:
                        value = huffman.decode(value)
                    at = stop
                field = (name, value)
                size = len(name) + len(value) + ENTRY_OVERHEAD_BYTES
                if first >= 0x40:
                    inserted += 1
                    entries.append(field)
                    sizes.append(size)
                    table_bytes += size
                    # A field larger than the table empties it and is not kept either (§4.4).
                    while table_bytes > self._size_limit_bytes:
                        entries.popleft()
                        table_bytes -= sizes.popleft()
            listed_bytes += size
            if listed_bytes <= most_bytes:
                add(field)
            elif listed_bytes > _BOMB_FACTOR * most_bytes:
                raise HeaderBomb("the header list is many times larger than allowed")
        self._inserted, self._size_bytes = inserted, table_bytes
        self.generation += inserted - inserted_before
        if listed_bytes > most_bytes:
            raise HeaderListTooLarge
        if alike < end and (not alike or 0x80 < block[alike] < 0xFF):
            self._run = _run_of(block, fields, inserted_before)
        return fields

    def _entry(self, index: int) -> Field:
        if not 0 < index - STATIC_LENGTH <= len(self._entries):
            raise HpackError(f"index {index} is not in the table")
        return self._entries[STATIC_LENGTH - index]

    @staticmethod
    def _string(block: bytes, at: int) -> tuple[bytes, int]:
        first = block[at]
        length = first & 0x7F
        if length < 0x7F:
            at += 1
        else:
            length, at = read_integer(block, at, 0x7F)
        end = at + length
        text = block[at:end]
        if len(text) != length:
            raise HpackError("a string is longer than its block")
        return (huffman.decode(text) if first & 0x80 else text), end

    def _resize(self, block: bytes, at: int, *, first_item: bool) -> int:
        if not first_item:
            raise HpackError("a table size update stands after a field")
        size_bytes, at = read_integer(block, at, 0x1F)
        if size_bytes > self._table_bytes:
            raise HpackError(f"a table of {size_bytes} bytes, more than the {self._table_bytes} allowed")
        if size_bytes != self._size_limit_bytes:
            self._size_limit_bytes = size_bytes
            while self._size_bytes > size_bytes:
                self._entries.popleft()
                self._size_bytes -= self._sizes.popleft()
            self.generation += 1
        return at


NO_TABLE: Final = b"\x20"
"""A size update to 0: sent once, before our first block, it says that we never use a dynamic table."""


def write_integer(value: int, prefix_mask: int, flags: int) -> bytes:
    """`value` in the low bits of the first byte, `flags` in its high bits (RFC 7541 §5.1)."""
    if value < prefix_mask:
        return bytes((flags | value,))
    out = bytearray((flags | prefix_mask,))
    value -= prefix_mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(fields: list[Field]) -> bytes:
    """One block for `fields`, from the static table and literals only: it can be kept and sent on any connection."""
    out = []
    for name, value in fields:
        index = BY_FIELD.get((name, value))
        if index is not None:
            out.append(write_integer(index, 0x7F, 0x80))
            continue
        index = BY_NAME.get(name, 0)
        out.append(write_integer(index, 0x0F, 0))
        if index == 0:
            out.append(write_integer(len(name), 0x7F, 0) + name)
        out.append(write_integer(len(value), 0x7F, 0) + value)
    return b"".join(out)
