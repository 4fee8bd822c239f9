"""Laws of decoding: what is written comes back, what is spoiled is told, nothing else escapes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.policy import quantities
from ratelimit_service.policy.decode import decode, decode_manifest
from ratelimit_service.policy.documents import SourceFile, parse, plain
from ratelimit_service.policy.encode import encode
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.profile_model import CacheProfile
from support.manifests import policies, profiles

Manifest = RateLimitPolicy | CacheProfile

manifests = st.one_of(policies, profiles)
words = st.sampled_from(
    [
        "apiVersion",
        "tidegate.dev/v1alpha1",
        "kind",
        "RateLimitPolicy",
        "List",
        "items",
        "metadata",
        "name",
        "spec",
        "rules",
        "domain",
        "descriptors",
        "key",
        "rate_limit",
        "unit",
        "match",
        "limits",
        "window",
        "1s",
        "calendar",
        "store",
        "l1",
    ]
)
safe_texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"]), max_size=4)
leaves = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | safe_texts | words
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | safe_texts, inner, max_size=5)
)
yaml_noise = st.text(st.sampled_from(list("ab:-[]{},&*!|>'\"%@`#?~ \n\t\\0123é\x00")), max_size=40)


def _decode(text: str | bytes) -> tuple[list[object], list[Problem]]:
    objects, problems = decode([SourceFile("a.yaml", text if isinstance(text, bytes) else text.encode())])
    return list(objects), problems


@given(st.binary(max_size=60))
@example(b"\xff\xfea")
@example(b"\x00")
@example(b"*a : 1")
@example(b"? - a")
@example(b"'\\ud800'")
def test_any_bytes_give_objects_or_problems(content: bytes) -> None:
    """Nothing is raised, and each problem stands on a line of the file or on none."""
    _, problems = _decode(content)

    assert all(0 <= each.line <= content.count(b"\n") + content.count(b"\r") + 2 for each in problems)


@given(yaml_noise)
@example("a: 1\n---\n...\n%x\n")
@example("{a: 1, a}")
@example("kind: a\n']': 1\n'a[': 1\n'.': 1")  # keys that look like ends of paths
def test_any_text_gives_objects_or_problems(text: str) -> None:
    """Nothing is raised for what is nearly YAML; messages are one printable line."""
    _, problems = _decode(text)

    assert all(each.message.isprintable() and each.path.isprintable() for each in problems)


@given(trees)
@example({"domain": "a", "descriptors": [{"key": "a", "rate_limit": []}]})
@example({"apiVersion": "tidegate.dev/v1alpha1", "kind": "CacheProfile", "metadata": {"name": "a"}, "spec": {"l1": []}})
def test_any_document_gives_objects_or_problems(tree: object) -> None:
    """Nothing is raised for YAML of any shape, whatever of our words it holds."""
    objects, problems = _decode(yaml.safe_dump(tree, allow_unicode=True))

    assert objects or problems or tree is None


@given(manifests)
def test_what_is_encoded_decodes_to_the_same(manifest: Manifest) -> None:
    """As the API server would hand it over, and as text on one line and on many."""
    value = encode(manifest)
    direct, problems = decode_manifest(value)
    (from_json,), _ = _decode(json.dumps(value, ensure_ascii=False))
    (from_block,), _ = _decode(json.dumps(value, ensure_ascii=False, indent=2))

    assert problems == []
    for again in (direct, from_json, from_block):
        assert isinstance(again, RateLimitPolicy | CacheProfile)
        assert (again.metadata, again.spec) == (manifest.metadata, manifest.spec)


@given(trees)
def test_a_tree_of_plain_values_is_the_same_value_from_text(tree: object) -> None:
    """Quoted strings, numbers, booleans and null are read as JSON has them."""
    found, problems = parse(SourceFile("a.yaml", json.dumps(tree, ensure_ascii=False).encode()))

    assert problems == []
    assert [plain(each.root) for each in found] == ([] if tree is None else [tree])


def _paths(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every path of a document with what stands there."""
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, f"{path}.{key}" if path else key)
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _paths(item, f"{path}[{place}]")


def _maps(value: object) -> list[tuple[str, dict[str, object]]]:
    return [(path, each) for path, each in _paths(value) if isinstance(each, dict) and "labels" not in path]


@given(manifests, st.data())
def test_an_unknown_field_anywhere_is_named(manifest: Manifest, data: st.DataObject) -> None:
    """The path is that of the field, at whatever depth, but in metadata, which Kubernetes extends."""
    value = encode(manifest)
    path, part = data.draw(st.sampled_from([each for each in _maps(value) if not each[0].startswith("metadata")]))
    part["zzz"] = 1

    _, problems = decode_manifest(value)

    assert [each.path for each in problems] == [f"{path}.zzz" if path else "zzz"]


@given(manifests, st.data())
def test_a_list_in_place_of_a_value_is_named(manifest: Manifest, data: st.DataObject) -> None:
    """Whatever is replaced by what no field takes, some problem names a path of the document."""
    value = encode(manifest)
    holes = [(part, key) for path, part in _maps(value) for key in part if not path.startswith("metadata.")]
    part, key = data.draw(st.sampled_from(holes))
    part[key] = [[]]

    _, problems = decode_manifest(value)

    known = {path for path, _ in _paths(value)}
    assert problems
    assert {each.path for each in problems} & known


Law = Callable[[dict[str, object]], list[Problem]]


def _holds_for_every_field(check: Law, value: dict[str, object]) -> bool:
    """Whether removing the required name of the first rule is told at its path."""
    spoiled = copy.deepcopy(value)
    del spoiled["spec"]["rules"][0]["name"]  # type: ignore[index]
    return [each.path for each in check(spoiled)] == ["spec.rules[0].name"]


@given(policies)
def test_a_required_field_that_is_missing_is_named(policy: RateLimitPolicy) -> None:
    """And a decoder that gives up at the first part, or that forgets places in lists, would not pass."""
    value = encode(policy)

    assert _holds_for_every_field(lambda spoiled: decode_manifest(spoiled)[1], value)
    assert not _holds_for_every_field(_mutant_without_places, value)
    assert not _holds_for_every_field(lambda _: [], value)


def _mutant_without_places(value: dict[str, object]) -> list[Problem]:
    """A planted bug: paths without the place in a list."""
    return [Problem(each.object, each.path.replace("[0]", ""), each.message) for each in decode_manifest(value)[1]]


@given(st.integers(0, 8_784 * 3_600_000).map(lambda value_ms: value_ms * 1_000))
@example(0)
@example(999_000)
@example(3_600_000_000 * 8_784)
def test_a_duration_is_read_as_it_is_written(value_us: int) -> None:
    """For every whole number of milliseconds; text never grows beyond what a field takes."""
    text = quantities.duration_text(value_us)

    assert quantities.duration_us(text) == value_us
    assert len(text) <= quantities.MAX_DURATION_LENGTH


@given(st.one_of(st.integers(0, 1 << 50), st.integers(0, 1023).map(lambda count: count << 30)))
@example(10**15 + 1)  # the most digits that a field takes
def test_a_quantity_is_read_as_it_is_written(value_bytes: int) -> None:
    """For every number of bytes."""
    assert quantities.quantity_bytes(quantities.quantity_text(value_bytes)) == value_bytes


@pytest.mark.parametrize(
    ("text", "value_us"),
    [
        ("1m30s", 90000000),
        ("100ms", 100000),
        ("1ms1h", 3600001000),
        ("1d", None),
        ("", None),
        ("1", None),
        ("1m\n", None),
        ("12345678s", None),
        ("-1s", None),
        ("1.5s", None),
        ("١s", None),
    ],
)
def test_durations_are_exactly_those_of_the_pattern(text: str, value_us: int | None) -> None:
    """No sign, fraction, other digits or line end; parts in any order."""
    assert quantities.duration_us(text) == value_us


@pytest.mark.parametrize(
    ("text", "value_bytes"),
    [
        ("200Mi", 200 << 20),
        ("1k", 1000),
        ("2G", 2_000_000_000),
        ("7", 7),
        ("1K", None),
        ("1.5Gi", None),
        ("1Mi\n", None),
    ],
)
def test_quantities_are_exactly_those_of_the_pattern(text: str, value_bytes: int | None) -> None:
    """Kubernetes' binary and decimal suffixes, whole numbers."""
    assert quantities.quantity_bytes(text) == value_bytes


def test_a_warning_is_no_error() -> None:
    """The severity decides whether a set is refused."""
    _, (problem,) = _decode("apiVersion: v1\nkind: ConfigMap\n")

    assert problem.severity is Severity.WARNING
