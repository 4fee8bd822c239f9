"""What each codec writes, and what it refuses."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from ratelimit_service.cache.errors import CorruptPayload, UnencodableValue
from ratelimit_service.cache.serialisers import Codec, JsonCodec, MsgpackCodec, RawCodec


class User(msgspec.Struct):
    """A typed value."""

    name: str
    age: int


TYPED: list[Codec[User]] = [MsgpackCodec(User), JsonCodec(User)]
PLAIN: list[Codec[object]] = [MsgpackCodec(), JsonCodec()]


@pytest.mark.parametrize("codec", TYPED)
def test_a_typed_codec_returns_its_type(codec: Codec[User]) -> None:
    """A struct comes back as that struct."""
    assert codec.decode(codec.encode(User("ann", 7))) == User("ann", 7)


@pytest.mark.parametrize("codec", TYPED)
def test_a_value_of_another_shape_is_corrupt(codec: Codec[User]) -> None:
    """A program that changed its type meets old values as misses, not as half-filled objects."""
    other: Codec[object] = JsonCodec() if isinstance(codec, JsonCodec) else MsgpackCodec()

    with pytest.raises(CorruptPayload):
        codec.decode(other.encode({"name": "ann"}))


@pytest.mark.parametrize("codec", PLAIN)
@pytest.mark.parametrize("value", [None, 0, "", [1, "a", None], {"a": {"b": [1.5, True]}}])
def test_plain_values_come_back_equal(codec: Codec[object], value: object) -> None:
    """Without a type, containers and scalars survive."""
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize(
    ("codec", "value"),
    [(codec, value) for codec in PLAIN for value in (object(), lambda: 0, "\ud800")] + [(PLAIN[0], 2**70)],
)
def test_what_cannot_be_written_is_named(codec: Codec[object], value: object) -> None:
    """An unencodable value raises one error of the cache's, with the codec's name."""
    with pytest.raises(UnencodableValue, match=codec.name) as caught:
        codec.encode(value)

    assert caught.value.codec == codec.name


def test_a_value_that_contains_itself_is_unencodable() -> None:
    """Recursion without end is an error of the cache's, not of the stack's."""
    value: list[object] = []
    value.append(value)

    with pytest.raises(UnencodableValue):
        MsgpackCodec[object]().encode(value)


@pytest.mark.parametrize("codec", PLAIN)
def test_a_pickle_is_never_read(codec: Codec[object]) -> None:
    """Bytes that would run code elsewhere are corrupt here."""
    with pytest.raises(CorruptPayload):
        codec.decode(pickle.dumps({"a": 1}) + b"\x00")


def test_raw_bytes_pass_as_they_are_and_nothing_else_does() -> None:
    """The raw codec neither copies nor converts."""
    codec = RawCodec()
    data = b"\x00\xff"

    assert codec.encode(data) is data
    assert codec.decode(data) is data
    with pytest.raises(UnencodableValue):
        codec.encode("text")  # type: ignore[arg-type]


def test_the_numbers_in_envelopes_are_these() -> None:
    """What is stored names its codec by number, so numbers never change."""
    assert (MsgpackCodec.number, JsonCodec.number, RawCodec.number) == (1, 2, 3)
