"""Header compression (RFC 7541): a decoder that is fast on blocks that vary, and an encoder without state.

The decoder counts every change of its table in `generation`. A caller may keep a decoded block only
together with the generation before and after it: equal means that the block did not touch the table,
and it stands for the same fields while `generation` stays the same.
"""

from __future__ import annotations

from collections import deque
from typing import Final

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


class Decoder:
    """Decodes the header blocks of one connection, in order.

    Attributes:
        generation: Counts changes of the dynamic table.
    """

    __slots__ = ("_entries", "_most_list_bytes", "_size_bytes", "_size_limit_bytes", "_table_bytes", "generation")

    def __init__(self, *, table_bytes: int = 4096, most_list_bytes: int = 16_384) -> None:
        """Begin with an empty table.

        Args:
            table_bytes: The SETTINGS_HEADER_TABLE_SIZE that we advertise.
            most_list_bytes: The SETTINGS_MAX_HEADER_LIST_SIZE that we advertise; a field costs 32 more than its text.
        """
        self.generation = 0
        # Newest last, so that an insertion moves nothing; index 62 is the last one.
        self._entries: deque[Field] = deque()
        self._size_bytes = 0
        self._size_limit_bytes = table_bytes
        self._table_bytes = table_bytes
        self._most_list_bytes = most_list_bytes

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
        fields: list[Field] = []
        add, entries, most_bytes = fields.append, self._entries, self._most_list_bytes
        listed_bytes = 0
        at, end = 0, len(block)
        while at < end:
            first = block[at]
            if first > 0x80:  # indexed (§6.1)
                if first == 0xFF:
                    index, at = read_integer(block, at, 0x7F)
                else:
                    index, at = first & 0x7F, at + 1
                if index <= STATIC_LENGTH:
                    field = STATIC[index - 1]
                elif index - STATIC_LENGTH <= len(entries):
                    field = entries[STATIC_LENGTH - index]
                else:
                    raise HpackError(f"index {index} is not in the table")
                name, value = field
            elif first & 0xE0 == 0x20:  # size update (§6.3)
                at = self._resize(block, at, first_item=not listed_bytes)
                continue
            elif first == 0x80:
                raise HpackError("index 0 is not in the table")
            else:  # a literal: with indexing (§6.2.1), without (§6.2.2), never (§6.2.3)
                mask = 0x3F if first >= 0x40 else 0x0F
                index = first & mask
                if index == mask:
                    index, at = read_integer(block, at, mask)
                else:
                    at += 1
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
                if first >= 0x40:
                    self.generation += 1
                    self._size_bytes += len(name) + len(value) + ENTRY_OVERHEAD_BYTES
                    entries.append(field)
                    # A field larger than the table empties it and is not kept either (§4.4).
                    if self._size_bytes > self._size_limit_bytes:
                        self._evict()
            listed_bytes += len(name) + len(value) + ENTRY_OVERHEAD_BYTES
            if listed_bytes <= most_bytes:
                add(field)
            elif listed_bytes > _BOMB_FACTOR * most_bytes:
                raise HeaderBomb("the header list is many times larger than allowed")
        if listed_bytes > most_bytes:
            raise HeaderListTooLarge
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
            self._evict()
            self.generation += 1
        return at

    def _evict(self) -> None:
        """Drop the oldest until the table is within its size."""
        entries, size_bytes, limit_bytes = self._entries, self._size_bytes, self._size_limit_bytes
        while size_bytes > limit_bytes:
            name, value = entries.popleft()
            size_bytes -= len(name) + len(value) + ENTRY_OVERHEAD_BYTES
        self._size_bytes = size_bytes


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
