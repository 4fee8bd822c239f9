"""Walk a document along a model and tell everything that is wrong with it, each with its path.

Generic: types, bounds, defaults and names come from `msgspec.inspect` of the model; rules between fields come from
the caller. A wrong part does not stop the walk: its place is taken by `BROKEN`, and only rules that would have to look
into it are left out. `null` stands for a field's default where the schema has one, as on the API server, and is a
problem elsewhere.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import inspect

from ratelimit_service.policy.documents import ListNode, MapNode, Node, Scalar, kind_of
from ratelimit_service.policy.quantities import duration_text, duration_us, quantity_bytes, quantity_text
from ratelimit_service.policy.wording import hint, listed, shown


class Broken(enum.Enum):
    """The type of `BROKEN`."""

    BROKEN = "broken"


BROKEN: Final = Broken.BROKEN
"""In place of a value that could not be decoded; its problem has been told."""

Report = Callable[[str, str], None]
"""Takes a path and a message."""

Finding = tuple[str, str]
"""Path below the checked part (`.burst`, `[1].match`, empty: the part itself) and message."""


class Check(msgspec.Struct, frozen=True):
    """A rule between fields of one part of a model.

    Attributes:
        run: Gives findings of a part; parts inside it may be `BROKEN` only in sequences (see `whole`).
        reads: Attributes that `run` looks into; where one is `BROKEN`, the check is left out.
    """

    run: Callable[[Any], Iterable[Finding]]
    reads: tuple[str, ...] = ()


Checks = Mapping[type, Sequence[Check]]
"""Rules by the class that they are about."""

PATTERN_WORDS: Final[Mapping[str, str]] = {
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "is lower-case letters, digits and `-`, with a letter or digit at both ends",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$": (
        "is lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of each part"
    ),
}
"""What a pattern of the model asks for, in words."""


def whole(items: Iterable[Any]) -> Iterator[Any]:
    """The items of a sequence that could be decoded."""
    return (item for item in items if item is not BROKEN)


def placed(items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """The items of a sequence that could be decoded, each with its place."""
    return ((place, item) for place, item in enumerate(items) if item is not BROKEN)


@functools.cache
def fields_of(struct: type) -> Mapping[str, inspect.Field]:
    """Fields of a part of a model by their names on the wire."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return {each.encode_name: each for each in info.fields}


class Shape(msgspec.Struct, frozen=True):
    """A field's type without its wrappers.

    Attributes:
        type: What the value is.
        optional: Whether it may be absent without a default.
        text: `duration` or `quantity` where an integer is written as text.
        map_key: Field by which the items of a list are unique, empty: none.
        description: What the field means.
        format: Of a text, as OpenAPI names it, empty: none.
    """

    type: inspect.Type
    optional: bool
    text: str = ""
    map_key: str = ""
    description: str = ""
    format: str = ""


def shape_of(info: inspect.Type) -> Shape:
    """Unwrap a field's type."""
    optional, extra, description = False, dict[str, object](), ""
    while True:
        if isinstance(info, inspect.Metadata):
            extra |= info.extra or {}
            description = description or str((info.extra_json_schema or {}).get("description", ""))
            info = info.type
        elif isinstance(info, inspect.UnionType):
            (info,) = (each for each in info.types if not isinstance(each, inspect.NoneType))
            optional = True
        else:
            text, map_key = str(extra.get("text", "")), str(extra.get("map_key", ""))
            return Shape(info, optional, text, map_key, description, str(extra.get("format", "")))


@functools.cache
def _field_shape(struct: type, name: str) -> Shape:
    return shape_of(fields_of(struct)[name].type)


def default_of(info: inspect.Field) -> object:
    """The schema's default of a field, `BROKEN` where it has none."""
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return BROKEN if info.required or info.default in (None, ()) else info.default


class Walk:
    """One document's way along the model."""

    def __init__(self, report: Report, checks: Checks) -> None:
        self._report = report
        self._checks = checks

    def struct(self, cls: type, node: Node, path: str, *, open_fields: bool = False) -> Any:
        """A part of the model, or `BROKEN`; `open_fields`: unknown fields are not read."""
        if not isinstance(node, MapNode):
            self._report(path, f"a mapping is wanted, not {kind_of(node)}")
            return BROKEN
        known = fields_of(cls)
        if not open_fields:
            self.unknown(node, known, path)
        values = {
            info.name: self._field(cls, info, node.entries.get(name), _join(path, name)) for name, info in known.items()
        }
        part = cls(**values)
        for check in self._checks.get(cls, ()):
            if all(values[name] is not BROKEN for name in check.reads):
                for below, message in check.run(part):
                    self._report(path + below, message)
        return BROKEN if any(value is BROKEN for value in values.values()) else part

    def unknown(self, node: MapNode, known: Iterable[str], path: str) -> None:
        """Tell fields that nobody knows."""
        names = list(known)
        for name in (each for each in node.entries if each not in names):
            tip = hint(name, names) or f"; known here: {listed(names)}"
            self._report(_join(path, shown(name)), f"unknown field `{shown(name)}`{tip}")

    def _field(self, cls: type, info: inspect.Field, node: Node | None, path: str) -> Any:
        shape = _field_shape(cls, info.encode_name)
        is_null = isinstance(node, Scalar) and node.value is None
        if node is None and info.required:
            self._report(path, "is required")
            return BROKEN
        default = default_of(info)
        if node is None or (is_null and default is not BROKEN):
            return info.default if default is BROKEN else default
        if is_null:
            self._report(path, "has no value; give one or remove the field")
            return BROKEN
        return self.value(shape, node, path)

    def value(self, shape: Shape, node: Node, path: str) -> Any:
        """A value of any type, or `BROKEN`."""
        info = shape.type
        if isinstance(info, inspect.StructType):
            return self.struct(info.cls, node, path)
        if isinstance(info, inspect.VarTupleType):
            return self._items(info, shape.map_key, node, path)
        if isinstance(info, inspect.DictType):
            return self._entries(info, node, path)
        if shape.text:
            return self._measure(shape, node, path)
        if isinstance(info, inspect.EnumType):
            return self._enum(info, node, path)
        if isinstance(info, inspect.IntType):
            return self._integer(info, node, path)
        if isinstance(info, inspect.BoolType):
            return self._boolean(node, path)
        assert isinstance(info, inspect.StrType)
        return self._string(info, node, path)

    def _items(self, info: inspect.VarTupleType, map_key: str, node: Node, path: str) -> Any:
        if not isinstance(node, ListNode):
            self._report(path, f"a list is wanted, not {kind_of(node)}")
            return BROKEN
        count = len(node.items)
        if not (info.min_length or 0) <= count <= (info.max_length or count):
            self._report(path, f"{_last(path)} has {info.min_length} to {info.max_length} items, not {count}")
            return BROKEN
        shape = shape_of(info.item_type)
        items = tuple(self.value(shape, item, f"{path}[{place}]") for place, item in enumerate(node.items))
        if map_key:
            self._unique(items, map_key, path)
        return items

    def _unique(self, items: Sequence[Any], map_key: str, path: str) -> None:
        first: dict[object, int] = {}
        for place, item in enumerate(items):
            if item is not BROKEN and first.setdefault(getattr(item, map_key), place) != place:
                earlier = first[getattr(item, map_key)]
                self._report(
                    f"{path}[{place}]",
                    f"duplicate {map_key} `{getattr(item, map_key)}`, already given by {_last(path)}[{earlier}]",
                )

    def _entries(self, info: inspect.DictType, node: Node, path: str) -> Any:
        if not isinstance(node, MapNode):
            self._report(path, f"a mapping is wanted, not {kind_of(node)}")
            return BROKEN
        count = len(node.entries)
        if not (info.min_length or 0) <= count <= (count if info.max_length is None else info.max_length):
            self._report(path, f"{_last(path)} has {info.min_length} to {info.max_length} entries, not {count}")
            return BROKEN
        shape = shape_of(info.value_type)
        entries = {key: self.value(shape, item, f"{path}[{shown(key)}]") for key, item in node.entries.items()}
        return BROKEN if BROKEN in entries.values() else entries

    def _measure(self, shape: Shape, node: Node, path: str) -> Any:
        """An integer that is written as text with a unit."""
        read, write, words = _MEASURES[shape.text]
        text = node.text if isinstance(node, Scalar) and isinstance(node.value, str | int) else ""
        is_text = isinstance(node, Scalar) and (isinstance(node.value, str) or shape.text == "quantity")
        value = read(text) if is_text else None
        if value is None:
            got = f"not {kind_of(node)}" if not is_text else f"not `{shown(text)}`"
            self._report(path, f"{words}, {got}")
            return BROKEN
        info = shape.type
        assert isinstance(info, inspect.IntType)
        assert info.ge is not None
        assert info.le is not None
        if not info.ge <= value <= info.le:
            self._report(path, f"{_last(path)} is {write(info.ge)} to {write(info.le)}")
            return BROKEN
        return value

    def _enum(self, info: inspect.EnumType, node: Node, path: str) -> Any:
        names = [each.value for each in info.cls]
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value in names:
            return info.cls(node.value)
        if isinstance(node, Scalar) and isinstance(node.value, str):
            message = f"`{shown(node.value)}` is none of {listed(names)}{hint(node.value, names)}"
        else:
            message = f"one of {listed(names)} is wanted, not {kind_of(node)}"
        self._report(path, message)
        return BROKEN

    def _integer(self, info: inspect.IntType, node: Node, path: str) -> Any:
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, int) or isinstance(value, bool):
            self._report(path, f"an integer is wanted, not {kind_of(node)}")
            return BROKEN
        assert info.ge is not None
        assert info.le is not None
        if not info.ge <= value <= info.le:
            self._report(path, f"{_last(path)} is {info.ge} to {info.le}, not {value}")
            return BROKEN
        return value

    def _boolean(self, node: Node, path: str) -> Any:
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        self._report(path, f"true or false is wanted, not {kind_of(node)}")
        return BROKEN

    def _string(self, info: inspect.StrType, node: Node, path: str) -> Any:
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, str):
            quotes = (
                f'; write it in quotes: "{shown(node.text)}"' if isinstance(node, Scalar) and value is not None else ""
            )
            self._report(path, f"a string is wanted, not {kind_of(node)}{quotes}")
            return BROKEN
        message = ""
        if len(value) < (info.min_length or 0):
            message = "is empty" if not value else f"has at least {info.min_length} characters"
        elif info.max_length is not None and len(value) > info.max_length:
            message = f"has at most {info.max_length} characters, not {len(value)}"
        elif info.pattern is not None and re.fullmatch(info.pattern.removesuffix("$"), value) is None:
            message = f"{PATTERN_WORDS[info.pattern]}, not `{shown(value)}`"
        if message:
            self._report(path, f"{_last(path)} {message}")
            return BROKEN
        return value


_MEASURES: Final[Mapping[str, tuple[Callable[[str], int | None], Callable[[int], str], str]]] = {
    "duration": (
        duration_us,
        duration_text,
        "a duration such as `100ms` or `1m30s` is wanted, with units h, m, s, ms",
    ),
    "quantity": (quantity_bytes, quantity_text, "a quantity such as `200Mi` or `1G` is wanted"),
}
"""How a text becomes an integer, how it is written, and what is said of a text that is none."""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _last(path: str) -> str:
    """The field that a path ends in: `spec.rules[0].name` → `name`, `a.labels[x.y]` → `labels`."""
    without_keys = re.sub(r"\[[^\]]*\]", "", path)
    return without_keys.rpartition(".")[2]
