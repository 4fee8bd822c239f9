"""A structural schema (OpenAPI v3 as the API server takes it) from a model.

Generic: types, bounds, defaults and descriptions come from `msgspec.inspect`, rules between fields from the caller.
What the API server can check, it says with the decoder's words: a bound of a duration is a rule with the sentence that
files get, because a schema can bound the form of a text only.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import inspect

from ratelimit_service.policy.encode import encode_value
from ratelimit_service.policy.quantities import (
    DURATION_PATTERN,
    MAX_DURATION_LENGTH,
    duration_text,
)
from ratelimit_service.policy.rules import CelRule
from ratelimit_service.policy.schema import BROKEN, Shape, default_of, fields_of, shape_of

Schema = dict[str, object]
"""A piece of OpenAPI v3."""

Rules = Mapping[type, Sequence[CelRule]]
"""CEL rules by the part that they are about."""

_QUANTITY: Final = r"^0*[1-9][0-9]{0,15}(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"
_MAX_QUANTITY_LENGTH: Final = 24


def rules_by_part(rules: Iterable[CelRule]) -> Rules:
    """Rules under the class that they are about, in their order."""
    found: dict[type, list[CelRule]] = {}
    for rule in rules:
        found.setdefault(rule.part, []).append(rule)
    return found


def schema_of(part: type, rules: Rules, description: str = "") -> Schema:
    """Schema of a part of a model and everything below it."""
    fields = fields_of(part)
    schema: Schema = {"type": "object", "description": description or _summary(part)}
    schema["properties"] = {name: _field(info, rules) for name, info in fields.items()}
    required = [name for name, info in fields.items() if info.required]
    if required:
        schema["required"] = required
    validations = [*map(_rule, rules.get(part, ())), *_duration_rules(fields)]
    if validations:
        schema["x-kubernetes-validations"] = validations
    return schema


def _summary(part: type) -> str:
    return (part.__doc__ or "").strip().partition("\n")[0]


def _rule(rule: CelRule) -> Schema:
    said: Schema = {"rule": rule.cel, "message": rule.message}
    return said | ({"fieldPath": rule.field} if rule.field else {})


def _duration_rules(fields: Mapping[str, inspect.Field]) -> list[Schema]:
    """The bounds of durations, in the words of files."""
    found: list[Schema] = []
    for name, info in fields.items():
        shape = shape_of(info.type)
        if shape.text != "duration" or not isinstance(shape.type, inspect.IntType):
            continue
        least, most = duration_text(shape.type.ge or 0), duration_text(shape.type.le or 0)
        value = f"duration(self.{name})"
        found.append(
            {
                "rule": f"!has(self.{name}) || ({value} >= duration('{least}') && {value} <= duration('{most}'))",
                "message": f"{name} is {least} to {most}",
                "fieldPath": f".{name}",
            }
        )
    return found


def _field(info: inspect.Field, rules: Rules) -> Schema:
    shape = shape_of(info.type)
    schema = _value(shape, rules)
    default = default_of(info)
    if default is not BROKEN and default != {}:
        schema["default"] = _default(default, shape.text)
    return schema


def _default(value: object, text: str) -> object:
    """A default as the API server wants it: of a part, all its fields, since its rules are held against it."""
    if not isinstance(value, msgspec.Struct):
        return encode_value(value, text)
    defaults = {name: (default_of(info), shape_of(info.type).text) for name, info in fields_of(type(value)).items()}
    return {name: _default(default, text) for name, (default, text) in defaults.items() if default is not BROKEN}


def _value(shape: Shape, rules: Rules) -> Schema:
    info = shape.type
    if isinstance(info, inspect.StructType):
        return schema_of(info.cls, rules, shape.description)
    described: Schema = {"description": shape.description} if shape.description else {}
    if isinstance(info, inspect.VarTupleType):
        return described | _list(info, shape.map_key, rules)
    if isinstance(info, inspect.DictType):
        values = _value(shape_of(info.value_type), rules)
        return described | {"type": "object", **_bounds(info, "Properties"), "additionalProperties": values}
    if isinstance(info, inspect.EnumType):
        return described | _enum(info.cls)
    if isinstance(info, inspect.IntType):
        return described | _integer(info, shape.text)
    if isinstance(info, inspect.BoolType):
        return described | {"type": "boolean"}
    assert isinstance(info, inspect.StrType)
    schema = described | {"type": "string", **_bounds(info, "Length")}
    if info.pattern is not None:
        schema["pattern"] = info.pattern
    return schema | ({"format": shape.format} if shape.format else {})


def _list(info: inspect.VarTupleType, map_key: str, rules: Rules) -> Schema:
    schema: Schema = {"type": "array", **_bounds(info, "Items"), "items": _value(shape_of(info.item_type), rules)}
    if map_key:
        return schema | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [map_key]}
    return schema | {"x-kubernetes-list-type": "atomic"}


def _bounds(info: inspect.StrType | inspect.VarTupleType | inspect.DictType, what: str) -> Schema:
    assert info.max_length is not None
    least: Schema = {f"min{what}": info.min_length} if info.min_length else {}
    return {**least, f"max{what}": info.max_length}


def _enum(names: type[enum.Enum]) -> Schema:
    return {"type": "string", "enum": [each.value for each in names]}


def _integer(info: inspect.IntType, text: str) -> Schema:
    if text == "duration":
        return {"type": "string", "maxLength": MAX_DURATION_LENGTH, "pattern": DURATION_PATTERN}
    bounds: Schema = {"minimum": info.ge, "maximum": info.le}
    if text == "quantity":
        # A whole number of bytes may be written without quotes, as in every quantity of Kubernetes.
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": _MAX_QUANTITY_LENGTH,
            "pattern": _QUANTITY,
            **bounds,
        }
    return {"type": "integer", "format": "int64", **bounds}
