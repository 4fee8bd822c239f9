"""Values to bytes and back: msgpack, JSON, or bytes as they are. Never pickle: reading must not run code.

A codec's number is written into every envelope, so that a reader knows what wrote a payload.
"""

from __future__ import annotations

from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from ratelimit_service.cache.errors import CorruptPayload, UnencodableValue

__all__ = ["Codec", "JsonCodec", "MsgpackCodec", "RawCodec"]

T = TypeVar("T")

# What msgspec raises for a value it cannot write: an unknown type, an integer over 64 bits, an object that
# contains itself, a lone surrogate.
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class Codec(Protocol[T]):
    """Writes values as bytes and reads them back.

    Attributes:
        name: As a profile spells it.
        number: As an envelope has it: 1–127 are Tidegate's, 128–255 are free for programs.
    """

    name: str
    number: int

    def encode(self, value: T) -> bytes:
        """Write a value.

        Raises:
            UnencodableValue: This codec cannot write it.
        """

    def decode(self, data: bytes) -> T:
        """Read what `encode` wrote.

        Raises:
            CorruptPayload: It did not write this, or not for this type.
        """


class _MsgspecCodec(Generic[T]):
    """What the codecs of msgspec have in common; each brings its encoder and decoder."""

    name: str
    _encoder: msgspec.msgpack.Encoder | msgspec.json.Encoder
    _decoder: msgspec.msgpack.Decoder[Any] | msgspec.json.Decoder[Any]

    def encode(self, value: T) -> bytes:
        """Write a value; see `Codec.encode`."""
        try:
            return self._encoder.encode(value)
        except _UNENCODABLE as error:
            raise UnencodableValue(self.name, str(error)) from error

    def decode(self, data: bytes) -> T:
        """Read a value; see `Codec.decode`."""
        try:
            value: T = self._decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise CorruptPayload(f"{self.name}: {error}") from error
        return value


class MsgpackCodec(_MsgspecCodec[T]):
    """msgpack by msgspec: the default.

    Without a type, values come back as plain containers and numbers: a tuple as a list, a struct as a dict.

    Args:
        value_type: What `decode` returns and checks, such as a struct.
    """

    name = "msgpack"
    number = 1

    def __init__(self, value_type: type[T] | None = None) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder() if value_type is None else msgspec.msgpack.Decoder(value_type)


class JsonCodec(_MsgspecCodec[T]):
    """JSON by msgspec, for payloads that other programs read.

    Args:
        value_type: What `decode` returns and checks; without it, plain containers and numbers.
    """

    name = "json"
    number = 2

    def __init__(self, value_type: type[T] | None = None) -> None:
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder() if value_type is None else msgspec.json.Decoder(value_type)


class RawCodec:
    """Bytes as they are: responses, images, what is encoded already."""

    name = "raw"
    number = 3

    def encode(self, value: bytes) -> bytes:
        """Return the value; anything but bytes is refused."""
        if not isinstance(value, bytes):
            raise UnencodableValue(self.name, f"bytes expected, not {type(value).__name__}")
        return value

    def decode(self, data: bytes) -> bytes:
        """Return the payload."""
        return data
