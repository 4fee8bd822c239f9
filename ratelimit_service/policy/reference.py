"""The reference page of every field of our manifests, made from the model, so that both say the same."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import inspect

from ratelimit_service.policy import profile_rules, rules
from ratelimit_service.policy.encode import encode_value
from ratelimit_service.policy.model import API_VERSION, Metadata, RateLimitPolicy, RateLimitPolicySpec
from ratelimit_service.policy.profile_model import CacheProfile, CacheProfileSpec
from ratelimit_service.policy.quantities import duration_text, quantity_text
from ratelimit_service.policy.rules import CelRule
from ratelimit_service.policy.schema import BROKEN, Shape, default_of, fields_of, shape_of

_HEADER: Final = ("| field | type | bounds | default | meaning |", "|---|---|---|---|---|")
_KINDS: Final = (
    (RateLimitPolicy, RateLimitPolicySpec, rules.CEL_RULES),
    (CacheProfile, CacheProfileSpec, profile_rules.CEL_RULES),
)


def render_policy_reference() -> str:
    """Markdown of all fields: one section per kind, one table per part, then the rules that tie fields together."""
    lines = [
        "# Fields of `RateLimitPolicy` and `CacheProfile`",
        "",
        "<!-- Made by `make generate` from the policy model; do not edit. -->",
        "",
        f"Both kinds are of `apiVersion: {API_VERSION}`.",
        "A field without a default may be left out unless it is required; its meaning says what holds then.",
        "Durations are written with the units `h`, `m`, `s`, `ms` (`1m30s`), quantities as in Kubernetes (`200Mi`).",
        "",
    ]
    for kind, spec, cel_rules in _KINDS:
        lines += [f"## {kind.__name__}", ""]
        paths: dict[type, str] = {}
        for part, path in ((Metadata, "metadata"), (spec, "spec")):
            lines += _sections(part, path, paths)
        lines += _rules(cel_rules, paths)
    return "\n".join(lines).rstrip() + "\n"


def _sections(part: type, path: str, paths: dict[type, str]) -> Iterator[str]:
    """A part's table and those of the parts inside it; `paths` gathers where each part is first met."""
    paths[part] = path
    yield f"### `{path}`"
    yield ""
    yield (part.__doc__ or "").strip()
    yield ""
    yield from _HEADER
    inner: list[tuple[type, str]] = []
    for name, info in fields_of(part).items():
        shape = shape_of(info.type)
        below = _struct_in(shape.type)
        if below is not None:
            is_list = isinstance(shape.type, inspect.VarTupleType)
            inner.append((below, f"{path}.{name}{'[]' if is_list else ''}"))
        cells = (f"`{name}`", _type(shape), _bounds(shape), _default(info), shape.description)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
    for below, below_path in inner:
        if below in paths:
            yield f"`{below_path}`: as `{paths[below]}`."
            yield ""
        else:
            yield from _sections(below, below_path, paths)


def _struct_in(info: inspect.Type) -> type | None:
    """The part that a field holds, one or a list of it."""
    if isinstance(info, inspect.VarTupleType):
        return _struct_in(shape_of(info.item_type).type)
    return info.cls if isinstance(info, inspect.StructType) else None


def _type(shape: Shape) -> str:
    """What is written for a field."""
    info = shape.type
    if shape.text:
        return shape.text
    if isinstance(info, inspect.VarTupleType):
        return f"list of {_type(shape_of(info.item_type))}"
    if isinstance(info, inspect.EnumType):
        return ", ".join(f"`{each.value}`" for each in info.cls)
    names: dict[type[inspect.Type], str] = {
        inspect.StructType: "object",
        inspect.DictType: "map of strings",
        inspect.IntType: "integer",
        inspect.BoolType: "boolean",
        inspect.StrType: "string",
    }
    return names[type(info)]


def _bounds(shape: Shape) -> str:
    """Least and most of a field, empty where it has none."""
    info = shape.type
    if isinstance(info, inspect.IntType):
        write = {"duration": duration_text, "quantity": quantity_text}.get(shape.text, str)
        return f"{write(info.ge or 0)} to {write(info.le or 0)}"
    if not isinstance(info, inspect.StrType | inspect.VarTupleType | inspect.DictType) or info.max_length is None:
        return ""
    unit = "characters" if isinstance(info, inspect.StrType) else "items"
    return f"{info.min_length or 0} to {info.max_length} {unit}"


def _default(info: inspect.Field) -> str:
    """The schema's default as it would be written."""
    if info.required:
        return "required"
    default = default_of(info)
    if default is BROKEN or isinstance(default, msgspec.Struct) or default == {}:
        return ""
    text = encode_value(default, shape_of(info.type).text)
    if isinstance(default, enum.Enum):
        return f"`{text}`"
    return f"`{str(text).lower()}`" if isinstance(text, bool) else f"`{text}`"


def _rules(cel_rules: tuple[CelRule, ...], paths: dict[type, str]) -> Iterator[str]:
    """What ties fields together, by the path that a problem names."""
    yield "### Rules between fields"
    yield ""
    yield "| path | rule |"
    yield "|---|---|"
    for rule in cel_rules:
        yield f"| `{paths[rule.part]}{rule.field}` | {rule.message} |"
    yield ""
