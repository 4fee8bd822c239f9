"""Huffman strings by zlib: the code of RFC 7541 is canonical, and so is DEFLATE's (RFC 1951 §3.2.2).

Given the same code lengths, both make the same codes. So one DEFLATE block that declares the lengths of Appendix B,
never ended, decodes header strings in C once the bits of each byte are turned round. What DEFLATE cannot have, codes
of more than 15 bits, all begin with fifteen ones; that code is declared as the block's end, so that a string with such
a symbol, EOS or a long padding stops the stream and is left to the table (`huffman`).

A string ends in up to seven padding ones, which are the beginning of a code that never comes. The next string is led
by the bits that complete it, and what they give is cut off: the stream goes on for ever, and nothing is set up anew.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from typing import Final

_LONGEST_BITS: Final = 15
_END_OF_BLOCK: Final = 256
_LENGTHS_ORDER: Final = 19
_EMPTY_BLOCKS: Final = 3
"""Of ten bits each, before ours: they bring its head to a whole number of bytes."""
_TURNED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in the other order: DEFLATE reads the lowest first, HPACK the highest."""


class InflateHuffman:
    """Decodes strings whose symbols all have codes of at most 15 bits. Each thread has a stream of its own.

    Args:
        codes: (code, length in bits) of each byte value, at least.
    """

    def __init__(self, codes: Sequence[tuple[int, int]]) -> None:
        lengths = [length if length <= _LONGEST_BITS else 0 for _, length in codes[:256]]
        self._bits = bytes(lengths)
        self._head = _head(lengths)
        self._ends = tuple(_completion(codes, padding) for padding in range(8))
        self._streams = threading.local()

    def decode(self, data: bytes) -> bytes | None:
        """The string that `data` encodes; None: it holds a longer code, or is wrong."""
        stream = getattr(self._streams, "stream", None)
        if stream is None:
            stream = self._streams.stream = _Stream(self._head)
        text = stream.inflate(stream.lead + data.translate(_TURNED), 2 * len(data) + 16)
        if stream.skip:
            text = text[stream.skip :]
        # What is left of the bits, which is less than the longest code: modulo 255 a number is the sum of its bytes.
        padding = (8 * len(data) - int.from_bytes(text.translate(self._bits), "big")) % 255
        ones = (1 << padding) - 1 if padding < 8 else 256
        if stream.decompressor.eof or data[-1] & ones != ones:
            # Where the stream stands now is not known.
            self._streams.stream = None
            return None
        stream.lead, stream.skip = self._ends[padding]
        return text


class _Stream:
    """A DEFLATE stream inside its one block, at the end of a string.

    Attributes:
        inflate: Its `decompress`.
        decompressor: The stream.
        lead: What completes the code that the last string's padding began.
        skip: Symbols that this gives.
    """

    __slots__ = ("decompressor", "inflate", "lead", "skip")

    def __init__(self, head: bytes) -> None:
        self.decompressor = zlib.decompressobj(wbits=-15)
        self.inflate = self.decompressor.decompress
        self.inflate(head)
        self.lead, self.skip = b"", 0


def _head(lengths: Sequence[int]) -> bytes:
    """The beginning of a DEFLATE stream: empty blocks, then a block's code lengths (RFC 1951 §3.2.6, §3.2.7)."""
    bits: list[int] = []

    def number(value: int, width: int) -> None:
        bits.extend(value >> place & 1 for place in range(width))

    for _ in range(_EMPTY_BLOCKS):
        number(0b010, 3)  # not the last, fixed codes
        number(0, 7)  # end of block
    number(0b101, 3)  # the last, codes of its own: after its end nothing is read
    number(0, 5)  # 257 literal codes: the bytes and the end of the block
    number(0, 5)  # one distance code
    number(_LENGTHS_ORDER - 4, 4)
    # Lengths are told in codes of 4 bits: 16 of them for 0 to 15; the order in which zlib wants them puts three others
    # first, for repetitions, which are not used.
    for place in range(_LENGTHS_ORDER):
        number(0 if place < 3 else 4, 3)
    for length in (*lengths, _LONGEST_BITS, 0):
        # Codes, unlike numbers, come highest bit first.
        bits.extend(length >> place & 1 for place in (3, 2, 1, 0))
    assert len(lengths) == _END_OF_BLOCK
    assert len(bits) % 8 == 0
    return bytes(sum(bit << place for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


def _completion(codes: Sequence[tuple[int, int]], padding: int) -> tuple[bytes, int]:
    """The bytes that make whole symbols of `padding` ones, turned, and how many symbols those are."""
    if padding == 0:
        return b"", 0
    zeros = codes[ord("0")][1]
    found = []
    for code, length in codes[:256]:
        rest = length - padding
        if length > _LONGEST_BITS or rest <= 0 or code >> rest != (1 << padding) - 1:
            continue
        # `0` is five zero bits: as many of them as lead to a whole byte.
        fillers = next(count for count in range(8) if (rest + zeros * count) % 8 == 0)
        width = rest + zeros * fillers
        bits = (code & (1 << rest) - 1) << zeros * fillers
        found.append((bits.to_bytes(width // 8, "big").translate(_TURNED), 1 + fillers))
    return min(found, key=lambda each: len(each[0]))
