"""YAML as trees with lines."""

from __future__ import annotations

import pytest

from ratelimit_service.policy import documents
from ratelimit_service.policy.documents import MapNode, Scalar, SourceFile, from_plain, kind_of, parse, plain


def _values(text: str) -> list[object]:
    found, problems = parse(SourceFile("a.yaml", text.encode()))
    assert problems == []
    return [plain(each.root) for each in found]


def _problem(content: bytes) -> tuple[str, str, int]:
    _, (problem,) = parse(SourceFile("a.yaml", content))
    return problem.path, problem.message, problem.line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("10", 10),
        ("-3", -3),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("01.5", "01.5"),
        ("'10'", "10"),
        ('"true"', "true"),
        ("2026-01-01", "2026-01-01"),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    """YAML 1.2's core schema, but integers on which tools differ stay strings."""
    assert _values(f"a: {text}") == [{"a": value}]


def test_documents_know_their_lines() -> None:
    """Lines count from 1 in the file, over all its documents, empty ones left out."""
    found, _ = parse(SourceFile("a.yaml", b"# first\na: 1\n---\n# nothing\n---\n- b\n"))

    assert [(each.line, plain(each.root)) for each in found] == [(2, {"a": 1}), (6, ["b"])]


def test_a_value_has_the_line_of_its_key() -> None:
    """A mapping that begins below its key is named by the key."""
    found, _ = parse(SourceFile("a.yaml", b"a:\n  b: 1\n"))
    root = found[0].root

    assert isinstance(root, MapNode)
    assert root.entries["a"].line == 1


def test_json_is_yaml() -> None:
    """A JSON file needs nothing else."""
    assert _values('{"a": [1, true, null, "x"]}') == [{"a": [1, True, None, "x"]}]


def test_a_byte_order_mark_is_not_text() -> None:
    """Editors write it; it is left out."""
    assert _values("\ufeffa: 1") == [{"a": 1}]


@pytest.mark.parametrize(
    ("content", "path", "message", "line"),
    [
        (b"a: 1\na: 2", "a", "duplicate key `a`, first on line 1", 2),
        (b"x:\n- a: 1\n  a: 2", "x[0].a", "duplicate key `a`, first on line 2", 3),
        (b"a: &x 1", "a", "anchors are not supported; remove &x", 1),
        (b"a: &x {}", "a", "anchors are not supported; remove &x", 1),
        (b"a: *x", "a", "aliases are not supported; write the value of *x out", 1),
        (b"*x : 1", "", "aliases are not supported; write the value of *x out", 1),
        (
            b"a: !!python/object:os.system x",
            "a",
            "tags are not supported; remove tag:yaml.org,2002:python/object:os.system",
            1,
        ),
        (b"1: a", "1", 'a key is a string; write it in quotes: "1"', 1),
        (b"? [a]\n: b", "", "a key is a string, not a list or a mapping", 1),
        (b"a:\n\t- b", "", "not YAML: found a tab; YAML is indented with spaces", 2),
        (b"a: [", "", "not YAML: did not find expected node content", 2),
        (b"a: 1\nb: \xff", "", "not UTF-8: byte 0xff", 2),
        (b"a: 1\nb: \x00", "", "not YAML: a control character that YAML does not allow", 2),
        (b"[" * 65, "", "nested deeper than 64 levels", 1),
    ],
)
def test_what_yaml_allows_and_we_do_not_is_named(content: bytes, path: str, message: str, line: int) -> None:
    """Each with its path and line."""
    assert _problem(content) == (path, message, line)


def test_a_file_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is checked before anything is parsed."""
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 1024 * 1024)

    assert _problem(b" " * (1024 * 1024 + 1)) == ("", "the file is larger than 1 MiB; split it", 0)


def test_documents_before_a_syntax_error_are_kept() -> None:
    """The one that is cut is dropped: what it lacks would only mislead."""
    found, problems = parse(SourceFile("a.yaml", b"a: 1\n---\nb: 1\nc: ]"))

    assert [plain(each.root) for each in found] == [{"a": 1}]
    assert [each.line for each in problems] == [4]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "a list"),
        ({}, "a mapping"),
        (None, "nothing"),
        (True, "the boolean True"),
        (5, "the integer 5"),
        (1.5, "the number 1.5"),
        ("x" * 70, "the string " + "x" * 63 + "…"),
        ("a\nb", r"the string a\nb"),
    ],
)
def test_a_node_is_named_in_words(value: object, words: str) -> None:
    """Long and unprintable text is shown safely."""
    assert kind_of(from_plain(value)) == words


def test_plain_values_become_trees_and_back() -> None:
    """What the API server gives takes the same way as a file."""
    value = {"a": [1, {"b": "c"}], "d": None}

    assert plain(from_plain(value)) == value
    assert from_plain(object.__class__) == Scalar(str(object.__class__), str(object.__class__), 0)
