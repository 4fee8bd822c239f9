"""YAML as plain trees that know their lines.

PyYAML's events (libyaml's parser in C) are read one by one; nothing is constructed by PyYAML, so no tag can make an
object and no alias can make a bomb. `parse` is a pure function of bytes and raises nothing: it may run in a child
process or, event by event, in slices.

What is read differently from PyYAML's own loader, so that one text means one thing to every tool:

* Plain scalars follow the core schema of YAML 1.2 (§10.3.2): `true`, `false` (and `True`, `TRUE`…) are booleans,
  `null`, `~` and nothing are null, `10` and `-3` integers, `1.5` and `1e3` floats. `on`, `yes`, `no`, `1:30` stay
  strings.
* Integers are decimal without leading zeros. `010`, `0x10` and `1_000` stay strings, because tools differ on them:
  where an integer is wanted they are refused.
* A duplicate key, an anchor, an alias, a tag and a key that is no string are problems.

JSON is YAML, so `.json` files need nothing else; only characters escaped as a surrogate pair (an emoji as two `u`
escapes) are refused, because YAML has no such escape: write the character itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import yaml

from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.wording import shown

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
"""Largest file that is read: many times what one ConfigMap holds."""

MAX_DEPTH: Final = 64
"""Deepest nesting; upstream's descriptors use two levels each."""

# libyaml's parser where PyYAML was built with it (ten times faster), else PyYAML's own: the same events.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?\Z")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]")
_CONSTANTS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


class SourceFile(msgspec.Struct, frozen=True):
    """A file as it was read: `name` is shown in problems, `content` is not yet trusted to be YAML or text."""

    name: str
    content: bytes


class Scalar(msgspec.Struct):
    """A leaf: its value by the rules above, and its text as it was written (without quotes)."""

    value: str | int | float | bool | None
    text: str
    line: int


class ListNode(msgspec.Struct):
    """A list."""

    items: list[Node]
    line: int


class MapNode(msgspec.Struct):
    """A mapping in the order that it was written; a value's line is its key's."""

    entries: dict[str, Node]
    line: int


Node = Scalar | ListNode | MapNode
"""Any part of a document."""


class Document(msgspec.Struct):
    """One document of a file that is not empty."""

    file: str
    line: int
    root: Node


def parse(source: SourceFile) -> tuple[list[Document], list[Problem]]:
    """All documents of a file, and everything that is wrong with it as YAML.

    After a syntax error the rest of the file is not read; the documents before it are returned.
    """
    text = _text(source)
    if isinstance(text, Problem):
        return [], [text]
    reader = _Reader(source.name)
    try:
        for event in _events(text):
            reader.feed(event)
    except _Refused as error:
        reader.give_up(error.problem)
    except yaml.YAMLError as error:
        reader.give_up(_syntax_problem(source.name, text, error))
    return reader.documents, reader.problems


def _text(source: SourceFile) -> str | Problem:
    """The file as text, or why it is none."""
    if len(source.content) > MAX_FILE_BYTES:
        size_mib = MAX_FILE_BYTES // (1024 * 1024)
        return Problem(source.name, "", f"the file is larger than {size_mib} MiB; split it")
    try:
        return source.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.content.count(b"\n", 0, error.start) + 1
        return Problem(source.name, "", f"not UTF-8: byte 0x{source.content[error.start]:02x}", line)


def _events(text: str) -> Iterator[yaml.Event]:
    """The parser's events; raises yaml.YAMLError where the text ends to be YAML."""
    events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
    return events


def _syntax_problem(file: str, text: str, error: yaml.YAMLError) -> Problem:
    """The parser's error in our form."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        what = error.problem or "cannot be parsed"
        if mark is not None and _character(text, mark.line, mark.column) == "\t":
            what = "found a tab; YAML is indented with spaces"
        return Problem(file, "", f"not YAML: {what}", mark.line + 1 if mark is not None else 0)
    # A ReaderError: a character that YAML forbids. It has a position in the encoded text.
    position = getattr(error, "position", None)
    line = text.encode(errors="replace").count(b"\n", 0, position) + 1 if isinstance(position, int) else 0
    return Problem(file, "", "not YAML: a control character that YAML does not allow", line)


def _character(text: str, line: int, column: int) -> str:
    """The character at a place that the parser names, empty past the end of a line."""
    lines = text.split("\n")
    return lines[line][column : column + 1] if line < len(lines) else ""


class _Refused(Exception):
    """Reading stops here."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Frame:
    """A list or mapping that is still open."""

    __slots__ = ("key", "key_line", "node", "path")

    def __init__(self, node: ListNode | MapNode, path: str) -> None:
        self.node = node
        self.path = path
        self.key: str | None = None
        self.key_line = 0

    def child_path(self) -> str:
        """Path of the next value in this frame."""
        if isinstance(self.node, ListNode):
            return f"{self.path}[{len(self.node.items)}]"
        if self.key is None:
            return self.path
        return f"{self.path}.{shown(self.key)}" if self.path else shown(self.key)


class _Reader:
    """Builds trees from events with a stack of its own, so that no nesting can exhaust Python's."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self._stack: list[_Frame] = []

    def feed(self, event: yaml.Event) -> None:
        """Take one event."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open(MapNode({}, self._line(event)), event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open(ListNode([], self._line(event)), event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._stack.pop()
        elif isinstance(event, yaml.AliasEvent):
            self._problem(event, f"aliases are not supported; write the value of *{shown(event.anchor or '')} out")
            self._add(Scalar(None, "", self._line(event)), event)

    def give_up(self, problem: Problem) -> None:
        """Stop at `problem`; the document that is still open is dropped, what it lacks would only mislead."""
        self.problems.append(problem)
        if self._stack:
            self.documents.pop()

    @staticmethod
    def _line(event: yaml.Event) -> int:
        return event.start_mark.line + 1 if event.start_mark is not None else 0

    def _path(self) -> str:
        return self._stack[-1].child_path() if self._stack else ""

    def _problem(self, event: yaml.Event, message: str) -> None:
        self.problems.append(Problem(self.file, self._path(), message, self._line(event)))

    def _check_properties(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            self._problem(event, f"anchors are not supported; remove &{shown(event.anchor)}")
        if event.tag is not None:
            self._problem(event, f"tags are not supported; remove {shown(event.tag)}")

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].node, MapNode) and self._stack[-1].key is None

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        wants_key = self._wants_key()
        if wants_key:
            self._key(event)
        self._check_properties(event)
        if not wants_key:
            value = _resolve(event.value) if not event.style else event.value
            self._add(Scalar(value, event.value, self._line(event)), event)

    def _key(self, event: yaml.ScalarEvent) -> None:
        frame = self._stack[-1]
        frame.key, frame.key_line = event.value, self._line(event)
        if not event.style and not isinstance(_resolve(event.value), str):
            self._problem(event, f'a key is a string; write it in quotes: "{shown(event.value)}"')
        assert isinstance(frame.node, MapNode)
        first = frame.node.entries.get(event.value)
        if first is not None:
            self._problem(event, f"duplicate key `{shown(event.value)}`, first on line {first.line}")

    def _open(self, node: ListNode | MapNode, event: yaml.CollectionStartEvent) -> None:
        if self._wants_key():
            raise _Refused(
                Problem(
                    self.file, self._stack[-1].path, "a key is a string, not a list or a mapping", self._line(event)
                )
            )
        if len(self._stack) >= MAX_DEPTH:
            raise _Refused(Problem(self.file, "", f"nested deeper than {MAX_DEPTH} levels", self._line(event)))
        self._check_properties(event)
        path = self._path()
        self._add(node, event)
        self._stack.append(_Frame(node, path))

    def _add(self, node: Node, event: yaml.Event) -> None:
        """Put a finished leaf or a just opened list or mapping where it belongs."""
        if not self._stack:
            if not (isinstance(node, Scalar) and node.value is None):
                self.documents.append(Document(self.file, self._line(event), node))
            return
        frame = self._stack[-1]
        if isinstance(frame.node, ListNode):
            frame.node.items.append(node)
        elif frame.key is None:
            # Only an alias arrives here: it stands where a key is wanted, and its problem has been told.
            frame.key, frame.key_line = "", node.line
        else:
            node.line = frame.key_line
            frame.node.entries[frame.key] = node
            frame.key = None


def _resolve(text: str) -> str | int | float | bool | None:
    """Value of a plain scalar."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.match(text):
        return int(text)
    if _FLOAT.match(text) and not _LEADING_ZERO.match(text):
        return float(text)
    return text


def plain(node: Node) -> object:
    """The tree as Python values, without lines."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {key: plain(item) for key, item in node.entries.items()}


def kind_of(node: Node) -> str:
    """What a node is, in words for a problem: `the integer 5`, `a list`."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a mapping"
    if node.value is None:
        return "nothing"
    names = {bool: "the boolean", int: "the integer", float: "the number", str: "the string"}
    return f"{names[type(node.value)]} {shown(node.text)}"


def from_plain(value: object) -> Node:
    """A tree without lines from JSON-like values: objects that came over the API instead of from a file."""
    if isinstance(value, Mapping):
        return MapNode({str(key): from_plain(item) for key, item in value.items()}, 0)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ListNode([from_plain(item) for item in value], 0)
    if value is None or isinstance(value, bool | int | float | str):
        return Scalar(value, str(value), 0)
    return Scalar(str(value), str(value), 0)
