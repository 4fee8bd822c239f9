"""What a request's header block must hold (RFC 9113 §8.2, §8.3), read once for all requests that are alike.

A client's requests differ in few fields, if in any. So the fields that the owner reads (`kept`) make a key under
which their `Shape` is found again; one more (`varied`) is handed over beside it; all others are checked and dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.wire.http2.hpack import Field

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
"""A field name: a lower-case token (RFC 9110 §5.1, RFC 9113 §8.2.1)."""
_CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
_BLANKS: Final = b" \t"

# What becomes of a field; integers because each field of each request is asked for its role.
_DROPPED: Final = 0
_KEPT: Final = 1
_VARIED: Final = 2
_TE: Final = 3

_MOST_SHAPES: Final = 64
_MOST_FIELDS: Final = 256
_MOST_FIELD_BYTES: Final = 256
"""A longer field is looked at each time instead of being remembered."""
_MOST_LEAD_BYTES: Final = 4_096


class MalformedFields(Exception):
    """The block is well compressed and no valid request: a stream error PROTOCOL_ERROR (§8.1.1)."""


class Shape(msgspec.Struct):
    """What the requests of one kind have in common.

    Attributes:
        method: Pseudo-field.
        path: Pseudo-field; empty for CONNECT.
        fields: Regular fields that are kept, by name; values of a repeated name are joined by a comma.
        content_length: Declared length of the body, None: not declared.
        pseudo_count: How many pseudo-fields it has.
        call: What the layer above made of it.
    """

    method: bytes
    path: bytes
    fields: dict[bytes, bytes]
    content_length: int | None
    pseudo_count: int
    call: object = None


class Head(msgspec.Struct, gc=False):
    """A request's header block, checked.

    Attributes:
        shape: What it has in common with others.
        varied: Value of the field that differs from request to request, None: it is not there.
        content_length: Of the shape.
        call: What the layer above made of this head, so that a block that comes again is read once.
        trace: Value of the field that ties the call to its caller's trace; None: not there, or not asked for.
    """

    shape: Shape
    varied: bytes | None
    content_length: int | None
    call: object = None
    trace: bytes | None = None


class HeadReader:
    """Reads the heads of one connection. What it remembers is bounded.

    Args:
        kept: Names of the regular fields that the owner reads.
        varied: Name of the one that is expected to differ from request to request.
    """

    __slots__ = ("_lead", "_lead_shape", "_names", "_passed", "_roles", "_shapes")

    def __init__(self, kept: frozenset[bytes], varied: bytes) -> None:
        self._names = {
            **dict.fromkeys(kept | {b"content-length"}, _KEPT),
            **dict.fromkeys(_PSEUDO, _KEPT),
            varied: _VARIED,
            b"te": _TE,
        }
        self._passed: set[bytes] = set()
        self._roles: dict[Field, int] = {}
        self._shapes: dict[tuple[Field, ...], Shape] = {}
        # Up to the last kept field of a block, without what varies; all of them were judged.
        self._lead: Sequence[Field] = ()
        self._lead_shape: Shape | None = None

    def read(self, block: Sequence[Field]) -> Head:
        """The head that a request's first block stands for.

        Raises:
            MalformedFields: A rule of §8.2 or §8.3 is broken.
        """
        names, passed, lead = self._names, self._passed, self._lead
        # Clients begin every block alike: that much of the last one is compared at one go.
        rest = block[len(lead) :]
        kept: list[Field] | None = None
        if not lead or block[: len(lead)] != lead:
            rest, kept = block, []
        varied: bytes | None = None
        for field in rest:
            name, value = field
            role = names.get(name)
            if role is None and name in passed:
                role = _DROPPED
            if role in (_DROPPED, _VARIED):
                _check_value(name, value)
            else:
                role = self._roles.get(field)
                if role is None:
                    role = self._judge(field)
            if role == _KEPT:
                if kept is None:
                    kept = [each for each in lead if self._judge(each) == _KEPT]
                kept.append(field)
            elif role == _VARIED:
                varied = value if varied is None else varied + b"," + value
        shape = self._lead_shape if kept is None else self._find_shape(block, tuple(kept))
        assert shape is not None
        return Head(shape, varied, shape.content_length)

    def _find_shape(self, block: Sequence[Field], key: tuple[Field, ...]) -> Shape:
        """The shape of the block whose kept fields are `key`; its beginning is what the next block is compared with."""
        shape = self._shapes.get(key)
        # The pseudo-fields are in the key in their order; that the last of them is where it should be in the block
        # shows that no other field stands before it (§8.3).
        if shape is None or block[shape.pseudo_count - 1] != key[shape.pseudo_count - 1]:
            shape = _shape(block, key)
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            self._shapes[key] = shape
        last = next(place for place in range(len(block) - 1, -1, -1) if block[place] == key[-1])
        lead = block[: last + 1]
        if sum(map(_size, lead)) <= _MOST_LEAD_BYTES and all(self._names.get(name) != _VARIED for name, _ in lead):
            self._lead, self._lead_shape = lead, shape
        return shape

    def check_trailers(self, block: Sequence[Field]) -> None:
        """A block after the body holds regular fields only.

        Raises:
            MalformedFields: It does not.
        """
        for field in block:
            if field[0] in _PSEUDO:
                raise MalformedFields(f"{field[0]!r} in trailers")
            self._judge(field)

    def _judge(self, field: Field) -> int:
        name, value = field
        role = self._names.get(name)
        if role is None:
            role = self._judge_name(name)
        elif role == _TE:
            if value != b"trailers":
                raise MalformedFields("te is anything but trailers")
            role = _DROPPED
        _check_value(name, value)
        # What a tracer writes is new each time: only fields that name something are worth remembering.
        if role == _KEPT and len(name) + len(value) <= _MOST_FIELD_BYTES:
            if len(self._roles) >= _MOST_FIELDS:
                self._roles.clear()
            self._roles[field] = role
        return role

    def _judge_name(self, name: bytes) -> int:
        """The role of a field that is none of those that were named to us."""
        if name in self._passed:
            return _DROPPED
        if not _NAME(name):
            raise MalformedFields(f"{name!r} is no lower-case field name")
        if name in _CONNECTION_SPECIFIC:
            raise MalformedFields(f"{name!r} belongs to HTTP/1.1 connections")
        if len(name) <= _MOST_FIELD_BYTES:
            if len(self._passed) >= _MOST_FIELDS:
                self._passed.clear()
            self._passed.add(name)
        return _DROPPED


class TracingHeadReader(HeadReader):
    """Reads heads, and one more field of each, which is new each time.

    Args:
        trace: Name of that field.
    """

    __slots__ = ("_trace",)

    def __init__(self, kept: frozenset[bytes], varied: bytes, trace: bytes) -> None:
        super().__init__(kept, varied)
        self._trace = trace

    def read(self, block: Sequence[Field]) -> Head:
        """See `HeadReader.read`."""
        head = super().read(block)
        head.trace = next((value for name, value in block if name == self._trace), None)
        return head


def _check_value(name: bytes, value: bytes) -> None:
    # Integers, because looking for bytes in bytes takes ten times as long.
    if 0x0A in value or 0x0D in value or 0 in value or value.strip(_BLANKS) != value:
        raise MalformedFields(f"the value of {name!r} has bytes that no field may hold")


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1])


def _shape(block: Sequence[Field], kept: Sequence[Field]) -> Shape:
    pseudo: dict[bytes, bytes] = {}
    fields: dict[bytes, bytes] = {}
    for name, value in kept:
        if name in _PSEUDO:
            if name in pseudo:
                raise MalformedFields(f"{name!r} is repeated")
            pseudo[name] = value
        else:
            fields[name] = value if name not in fields else fields[name] + b"," + value
    if any(name not in _PSEUDO for name, _ in block[: len(pseudo)]):
        raise MalformedFields("a pseudo-field stands after a regular one")
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if method == b"CONNECT":
        if pseudo.keys() != {b":method", b":authority"}:
            raise MalformedFields("CONNECT takes :authority alone")
    elif not method or not path or b":scheme" not in pseudo:
        raise MalformedFields("a request has :method, :scheme and :path")
    return Shape(method, path, fields, _content_length(fields), len(pseudo))


def _content_length(fields: dict[bytes, bytes]) -> int | None:
    text = fields.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise MalformedFields("content-length is no number")
    return int(text)
