"""What a head reader remembers changes nothing of what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.wire.http2.fields import HeadReader, MalformedFields, Shape
from ratelimit_service.wire.http2.hpack import Field

METHOD, SCHEME, PATH, KEPT = (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b"kept", b"1")
fields = st.sampled_from(
    [METHOD, SCHEME, PATH, (b":path", b"/b"), KEPT, (b"kept", b"2"), (b"varied", b"x"), (b"varied", b"y"),
     (b"other", b"1"), (b"other", b" 2"), (b"te", b"trailers"), (b"te", b"gzip"), (b"content-length", b"3")]
)  # fmt: skip
blocks = st.one_of(
    st.lists(fields, max_size=7),
    st.lists(fields, max_size=4).map(lambda rest: [METHOD, SCHEME, PATH, *rest]),
)


def said_by(reader: HeadReader, block: list[Field]) -> object:
    """All that a head says, or that it is refused."""
    try:
        head = reader.read(block)
    except MalformedFields:
        return None
    shape = head.shape
    return shape.method, shape.path, shape.fields, shape.content_length, head.varied, head.content_length


def reader_of(kind: Callable[[frozenset[bytes], bytes], HeadReader] = HeadReader) -> HeadReader:
    """A reader that has seen nothing."""
    return kind(frozenset({b"kept"}), b"varied")


def check_that_memory_changes_nothing(
    kind: Callable[[frozenset[bytes], bytes], HeadReader], sequence: list[list[Field]]
) -> None:
    """The law: each block is read as by a reader that has seen no other."""
    reader = reader_of(kind)
    assert [said_by(reader, block) for block in sequence] == [said_by(reader_of(), block) for block in sequence]


@given(st.lists(blocks, max_size=8))
@example([[METHOD, SCHEME, PATH, KEPT, (b"varied", b"x")], [METHOD, SCHEME, PATH, KEPT, (b"varied", b"y"), KEPT]])
@example([[METHOD, SCHEME, PATH], [METHOD, SCHEME, PATH, PATH]])
@example([[METHOD, SCHEME, PATH, (b"varied", b"x"), KEPT], [METHOD, SCHEME, PATH, (b"varied", b"y"), KEPT]])
def test_blocks_are_read_as_if_each_were_the_first(sequence: list[list[Field]]) -> None:
    """Whatever came before, refused blocks too."""
    check_that_memory_changes_nothing(HeadReader, sequence)


class TrustsTheBeginning(HeadReader):
    """Planted: a block that begins like the last one is taken for it, kept fields behind the beginning or not."""

    def read(self, block):
        """As told."""
        if self._lead and block[: len(self._lead)] == self._lead and self._lead_shape is not None:
            return super().read([*self._lead, *(field for field in block[len(self._lead) :] if field[0] == b"varied")])
        return super().read(block)


class KeepsWhatVaries(HeadReader):
    """Planted: the beginning that is compared may hold the field that varies."""

    def _find_shape(self, block, key) -> Shape:
        shape = super()._find_shape(block, key)
        self._lead, self._lead_shape = block, shape
        return shape


@pytest.mark.parametrize("planted", [TrustsTheBeginning, KeepsWhatVaries])
def test_the_law_catches(planted: type[HeadReader]) -> None:
    """Two ways of comparing too little."""
    sequence: list[list[Field]] = [
        [METHOD, SCHEME, PATH, KEPT],
        [METHOD, SCHEME, PATH, KEPT, (b"kept", b"2")],
        [METHOD, SCHEME, PATH, (b"varied", b"x")],
        [METHOD, SCHEME, PATH, (b"varied", b"x")],
    ]
    with pytest.raises(AssertionError):
        check_that_memory_changes_nothing(planted, sequence)
