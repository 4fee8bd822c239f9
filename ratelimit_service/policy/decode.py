"""From files to manifests, with every problem at once.

`decode` is pure and may run in a child process: what it takes and gives can be pickled.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ratelimit_service.policy import capability, profile_rules, rules
from ratelimit_service.policy.documents import ListNode, MapNode, Node, Scalar, SourceFile, from_plain, kind_of, parse
from ratelimit_service.policy.model import API_VERSION, Metadata, RateLimitPolicy, RateLimitPolicySpec
from ratelimit_service.policy.origin import Origin
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.profile_model import CacheProfile, CacheProfileSpec
from ratelimit_service.policy.schema import BROKEN, Check, Checks, Report, Walk
from ratelimit_service.policy.upstream import decode_upstream, duplicate_domains
from ratelimit_service.policy.upstream_model import UpstreamConfig
from ratelimit_service.policy.wording import hint, listed, shown

Manifest = RateLimitPolicy | CacheProfile
"""What an object of group `tidegate.dev` decodes to."""

PolicyObject = RateLimitPolicy | CacheProfile | UpstreamConfig
"""What a document of a file decodes to."""

MAX_PROBLEMS: Final = 200
"""Most problems that one document is told about; a file of noise would have a million."""

KINDS: Final[Mapping[str, tuple[type[Manifest], type]]] = {
    "RateLimitPolicy": (RateLimitPolicy, RateLimitPolicySpec),
    "CacheProfile": (CacheProfile, CacheProfileSpec),
}
"""Manifests and the class of their spec by kind."""

_GROUP: Final = API_VERSION.partition("/")[0]
_TOP_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec", "status")


@functools.cache
def _checks() -> Checks:
    table: dict[type, list[Check]] = {}
    for part, check in (*rules.CHECKS, *profile_rules.CHECKS):
        table.setdefault(part, []).append(check)
    return table


def decode(files: Sequence[SourceFile], *, merge_domains: bool = False) -> tuple[list[PolicyObject], list[Problem]]:
    """Objects in order of sorted file name, then document; and all problems, warnings included.

    Args:
        files: As they were read.
        merge_domains: Whether one domain may stand in several documents of envoyproxy/ratelimit YAML.

    Returns:
        Objects without an error of their own, from files that are good YAML, and problems.
        Where any problem is an error, the set is to be refused.
    """
    objects: list[PolicyObject] = []
    problems: list[Problem] = []
    for file in sorted(files, key=lambda each: each.name):
        documents, faults = parse(file)
        problems += faults[:MAX_PROBLEMS]
        for document in documents:
            for node, line in _objects_of(document.root, document.line):
                found, told = _decode_document(node, Origin(file.name, line, _lines(node)))
                problems += sorted(told, key=lambda each: each.line)[:MAX_PROBLEMS]
                if not faults:
                    objects += found
    problems += _duplicates(objects)
    if not merge_domains:
        problems += duplicate_domains([each for each in objects if isinstance(each, UpstreamConfig)])
    return objects, problems


def decode_manifest(value: object, name: str = "") -> tuple[Manifest | None, list[Problem]]:
    """One manifest from JSON-like values, as the API server gives them; `name` stands in problems for the file."""
    found, problems = _decode_document(from_plain(value), Origin(name))
    manifests = [each for each in found if not isinstance(each, UpstreamConfig)]
    return (manifests[0] if manifests else None), [each for each in problems if each.severity is Severity.ERROR]


def decode_config(value: object, name: str) -> tuple[UpstreamConfig | None, list[Problem]]:
    """One document of envoyproxy/ratelimit's YAML from JSON-like values; `name` stands in problems for the file."""
    found, problems = _decode_document(from_plain(value), Origin(name))
    configs = [each for each in found if isinstance(each, UpstreamConfig)]
    return (configs[0] if configs else None), [each for each in problems if each.severity is Severity.ERROR]


def _objects_of(root: Node, line: int) -> Iterator[tuple[Node, int]]:
    """The document itself, or the items of a `kind: List`."""
    if isinstance(root, MapNode) and _text(root, "kind") == "List" and _text(root, "apiVersion") == "v1":
        items = root.entries.get("items")
        if isinstance(items, ListNode):
            for item in items.items:
                yield item, item.line
            return
    yield root, line


def _decode_document(node: Node, origin: Origin) -> tuple[list[PolicyObject], list[Problem]]:
    problems: list[Problem] = []

    def report(path: str, message: str, severity: Severity = Severity.ERROR) -> None:
        problems.append(Problem(origin.file, path, message, origin.line_of(path), severity))

    found: PolicyObject | None = None
    if not isinstance(node, MapNode):
        report("", f"a manifest is a mapping, not {kind_of(node)}")
    elif "apiVersion" not in node.entries and "kind" not in node.entries:
        if "domain" in node.entries or "descriptors" in node.entries:
            found = decode_upstream(node, origin, report, lambda path, message: report(path, message, Severity.WARNING))
        else:
            report("", f"neither a manifest of {API_VERSION} nor envoyproxy/ratelimit's YAML: no `kind`, no `domain`")
    elif _is_foreign(node):
        kind = f"{shown(_text(node, 'apiVersion'))} {shown(_text(node, 'kind'))}"
        report("", f"{kind} is not ours to read: skipped", Severity.WARNING)
    else:
        found = _decode_manifest(node, origin, report)
    errors = any(each.severity is Severity.ERROR for each in problems)
    if found is None or errors:
        return [], problems
    if not isinstance(found, UpstreamConfig):
        problems += capability.warnings_of(found)
    return [found], problems


def _is_foreign(node: MapNode) -> bool:
    """Whether it is another group's object, which may well lie in the same folder."""
    api_version, kind = _text(node, "apiVersion"), _text(node, "kind")
    return bool(api_version and kind) and api_version.partition("/")[0] != _GROUP and kind not in KINDS


def _decode_manifest(node: MapNode, origin: Origin, report: Report) -> Manifest | None:
    walk = Walk(report, _checks())
    kind = _text(node, "kind")
    for name, known in (("apiVersion", [API_VERSION]), ("kind", list(KINDS))):
        written = _text(node, name)
        if name not in node.entries:
            report(name, f"is required: one of {listed(known)}")
        elif written not in known:
            report(name, f"`{shown(written)}` is unknown{hint(written, known)}; known: {listed(known)}")
    walk.unknown(node, _TOP_FIELDS, "")
    metadata = _part(walk, Metadata, node, "metadata", report)
    if kind not in KINDS:
        return None
    manifest, spec_class = KINDS[kind]
    spec = _part(walk, spec_class, node, "spec", report)
    if metadata is BROKEN or spec is BROKEN:
        return None
    return manifest(metadata=metadata, spec=spec, origin=origin)


def _part(walk: Walk, cls: type, node: MapNode, name: str, report: Report) -> Any:
    """One of the two parts of a manifest; of metadata only what the model knows is read."""
    part = node.entries.get(name)
    if part is None:
        report(name, "is required")
        return BROKEN
    return walk.struct(cls, part, name, open_fields=cls is Metadata)


def _text(node: MapNode, name: str) -> str:
    """A field as text, empty where it is absent or no scalar."""
    entry = node.entries.get(name)
    return entry.text if isinstance(entry, Scalar) else ""


def _lines(root: Node) -> dict[str, int]:
    """Line of each path that does not start on its parent's line."""
    lines: dict[str, int] = {}
    waiting: list[tuple[str, Node]] = [("", root)]
    while waiting:
        path, node = waiting.pop()
        for below, child in _children(node):
            whole_path = f"{path}{below}" if path else below.removeprefix(".")
            if child.line != node.line:
                lines[whole_path] = child.line
            if not isinstance(child, Scalar):
                waiting.append((whole_path, child))
    return lines


def _children(node: Node) -> Iterable[tuple[str, Node]]:
    if isinstance(node, ListNode):
        return [(f"[{place}]", item) for place, item in enumerate(node.items)]
    return [(f".{shown(key)}", item) for key, item in node.entries.items()] if isinstance(node, MapNode) else ()


def _duplicates(objects: Iterable[PolicyObject]) -> list[Problem]:
    """Two manifests of one kind and name: the API server keeps the last, files would hide one."""
    problems: list[Problem] = []
    first: dict[tuple[str, str, str], Origin] = {}
    for each in objects:
        if isinstance(each, UpstreamConfig):
            continue
        name = (type(each).__name__, each.metadata.namespace, each.metadata.name)
        earlier = first.setdefault(name, each.origin)
        if earlier is not each.origin:
            message = f"{name[0]} {name[1]}/{name[2]} is already defined at {earlier}; give it another name"
            problems.append(Problem(each.origin.file, "metadata.name", message, each.origin.line_of("metadata.name")))
    return problems
