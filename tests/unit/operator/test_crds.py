"""The definitions that are made from the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ratelimit_operator.api.crds import KINDS, Kind, definition, render_crd


def _properties(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, below in schema.get("properties", {}).items():
        yield f"{path}.{name}", below
        yield from _properties(below, f"{path}.{name}")
    if "items" in schema:
        yield f"{path}[]", schema["items"]
        yield from _properties(schema["items"], f"{path}[]")


def _parts(kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    crd: Any = definition(kind)
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return [*_properties(root["spec"], "spec"), *_properties(root["status"], "status")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_field_has_a_description(kind: Kind) -> None:
    """`kubectl explain` has a sentence for each."""
    silent = [path for path, schema in _parts(kind) if not path.endswith("[]") and not schema.get("description")]

    assert silent == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_everything_is_bounded(kind: Kind) -> None:
    """Lists, maps, strings and integers have a most, or the API server's cost of a rule has none."""
    bound = {"array": "maxItems", "string": "maxLength", "integer": "maximum"}
    unbounded = [
        path
        for path, schema in _parts(kind)
        if schema.get("type") in bound and bound[schema["type"]] not in schema and "enum" not in schema
    ]

    assert unbounded == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_maps_are_bounded(kind: Kind) -> None:
    """The same for maps."""
    maps = [schema for _, schema in _parts(kind) if "additionalProperties" in schema]

    assert all("maxProperties" in schema for schema in maps)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_file_says_what_the_code_says(kind: Kind) -> None:
    """Plain YAML without aliases."""
    text = render_crd(kind)

    assert yaml.safe_load(text) == definition(kind)
    assert "&id" not in text


def test_the_bounds_of_a_duration_are_a_rule_in_the_decoders_words() -> None:
    """A schema bounds the form of a text only."""
    limit = dict(_parts(KINDS[0]))["spec.rules[].limits[]"]

    assert limit["x-kubernetes-validations"][-1] == {
        "rule": "!has(self.window) || (duration(self.window) >= duration('100ms') && "
        "duration(self.window) <= duration('8784h'))",
        "message": "window is 100ms to 8784h",
        "fieldPath": ".window",
    }


def test_a_part_that_has_defaults_is_whole_in_its_own() -> None:
    """The API server holds the part's rules against the default."""
    store = dict(_parts(KINDS[1]))["spec.store"]

    assert store["default"] == {"type": "Memory"}
