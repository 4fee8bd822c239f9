"""Which rule a descriptor meets.

Per entry, in order: the exact value, then patterns in config order (the first that matches), then the bare key.
There is no way back to a sibling branch, and a rule counts only when it is found at the last entry
(envoyproxy/ratelimit, `src/config/config_impl.go`, GetLimit).
An empty value is written by no `value` of upstream's YAML, so there it falls through to `*` and to the bare key.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from ratelimit_service.policy.snapshot import Domain, Node, Pattern, Rule
from ratelimit_service.policy.tree import Step, StepKind, chain_text, walk_rules

Entries = Sequence[tuple[bytes, bytes]]
"""(key, value) pairs of one descriptor, in order."""

MAX_CANDIDATES = 50
"""Rules that `trace` explains at most; those that share the most entries with the request come first."""


def match(domain: Domain, entries: Entries) -> Rule | None:
    """The rule that a descriptor is charged by, None: it has no limit."""
    node = domain.root
    for key, value in entries:
        child = child_of(node, key, value)
        if child is None:
            return None
        node = child
    return node.rule


def child_of(node: Node, key: bytes, value: bytes) -> Node | None:
    """Where one entry leads, None: nowhere."""
    values = node.exact.get(key)
    child = values.get(value) if values is not None else None
    if child is None:
        patterns = node.patterns.get(key)
        found = first_pattern(patterns, value) if patterns is not None else None
        child = found.node if found is not None else node.bare.get(key)
    return child


def first_pattern(patterns: Sequence[Pattern], value: bytes) -> Pattern | None:
    """The first pattern that the value matches, in config order."""
    for pattern in patterns:
        if matches(pattern.parts, value):
            return pattern
    return None


def matches(parts: Sequence[bytes], value: bytes) -> bool:
    """Whether a value is the parts in order with anything, also nothing, between them; it takes at least two parts."""
    first, last = parts[0], parts[-1]
    if len(value) < len(first) + len(last) or not value.startswith(first) or not value.endswith(last):
        return False
    position, end = len(first), len(value) - len(last)
    for part in parts[1:-1]:
        # The leftmost place leaves the most room for what follows.
        position = value.find(part, position, end)
        if position < 0:
            return False
        position += len(part)
    return True


class Taken(enum.Enum):
    """What an entry of a request met in the tree."""

    EXACT = "exact value"
    PATTERN = "pattern"
    BARE = "bare key"
    NOTHING = "nothing"


class TraceStep(msgspec.Struct, frozen=True):
    """How one entry was taken.

    Attributes:
        entry: The request's entry as text, `plan=gold`.
        taken: What it met.
        branch: The branch as it is configured (`plan=gold`, `plan=go*`, `plan`), empty: none.
        why: One sentence for people.
    """

    entry: str
    taken: Taken
    branch: str
    why: str


class Candidate(msgspec.Struct, frozen=True):
    """A rule that was not met, and why not."""

    rule: Rule
    chain: str
    why: str


class Trace(msgspec.Struct, frozen=True):
    """How a descriptor was matched, for people.

    Attributes:
        rule: What it met, None: nothing; it is the same as what `match` gives.
        steps: One per entry, up to the one that met nothing.
        why: Why this rule, or why none.
        candidates: Other rules that begin with the same key, at most 50.
    """

    rule: Rule | None
    steps: tuple[TraceStep, ...]
    why: str
    candidates: tuple[Candidate, ...]


def trace(domain: Domain, entries: Entries) -> Trace:
    """Explain `match`, one step per entry."""
    node: Node | None = domain.root
    steps: list[TraceStep] = []
    path: list[Step] = []
    for key, value in entries:
        assert node is not None
        node, step = _trace_step(node, key, value, steps)
        if node is None or step is None:
            break
        path.append(step)
    rule = node.rule if node is not None and entries else None
    return Trace(rule, tuple(steps), _why(rule, node, steps), tuple(_candidates(domain, entries, path, rule)))


def _trace_step(node: Node, key: bytes, value: bytes, steps: list[TraceStep]) -> tuple[Node | None, Step | None]:
    entry = f"{text_of(key)}={text_of(value)}"
    exact = node.exact.get(key, {})
    patterns = node.patterns.get(key, ())
    pattern = first_pattern(patterns, value)
    if value in exact:
        step = Step(key, StepKind.EXACT, value)
        steps.append(TraceStep(entry, Taken.EXACT, str(step), "the exact value comes first"))
        return exact[value], step
    if pattern is not None:
        step = Step(key, StepKind.PATTERN, pattern.text, pattern.parts)
        why = f"no exact value; the first of {_count(len(patterns), 'pattern')} that matches"
        steps.append(TraceStep(entry, Taken.PATTERN, str(step), why))
        return pattern.node, step
    if key in node.bare:
        step = Step(key, StepKind.BARE)
        why = f"none of {_count(len(exact), 'exact value')} and {_count(len(patterns), 'pattern')}; any value is taken"
        steps.append(TraceStep(entry, Taken.BARE, str(step), why))
        return node.bare[key], step
    known = sorted({*node.exact, *node.patterns, *node.bare})
    if key in known:
        why = f"key `{text_of(key)}` is known here, but not with this value"
    elif known:
        why = f"key `{text_of(key)}` is not known here; known: {', '.join(text_of(name) for name in known[:10])}"
    else:
        why = "nothing is configured below this branch"
    steps.append(TraceStep(entry, Taken.NOTHING, "", why))
    return None, None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _why(rule: Rule | None, node: Node | None, steps: Sequence[TraceStep]) -> str:
    if rule is not None:
        return f"rule `{rule.name}` stands at the last entry"
    if not steps:
        return "the descriptor has no entries"
    if node is None:
        return f"entry {len(steps)} ({steps[-1].entry}) met nothing, and matching does not go back"
    if node.exact or node.patterns or node.bare:
        return "the rules on this branch need more entries"
    return "the branch ends here without a limit"


def _candidates(domain: Domain, entries: Entries, path: Sequence[Step], met: Rule | None) -> list[Candidate]:
    """Rules whose first key is the request's, those that share the longest way first."""
    if not entries:
        return []
    found: list[tuple[int, Candidate]] = []
    for chain, rule in walk_rules(domain.root):
        if chain[0].key == entries[0][0] and rule is not met:
            shared, why = _why_not(chain, entries, path)
            found.append((-shared, Candidate(rule, chain_text(chain), why)))
    found.sort(key=lambda pair: pair[0])
    return [candidate for _, candidate in found[:MAX_CANDIDATES]]


def _why_not(chain: Sequence[Step], entries: Entries, path: Sequence[Step]) -> tuple[int, str]:
    """(entries that fit, why this chain was not taken to its end)."""
    for index, (step, (key, value)) in enumerate(zip(chain, entries, strict=False)):
        if step.key != key:
            return index, f"entry {index + 1} is `{text_of(step.key)}` there, `{text_of(key)}` in the request"
        if not _fits(step, value):
            return index, f"entry {index + 1} is `{step}` there, the request has `{text_of(value)}`"
    if len(chain) != len(entries):
        return min(len(chain), len(entries)), f"it has {len(chain)} entries, the request {len(entries)}"
    for step, taken in zip(chain, path, strict=False):
        if step != taken:
            return len(chain), f"`{taken}` is tried before `{step}`, and matching does not go back"
    return len(chain), "another rule of the same chain is in force"


def _fits(step: Step, value: bytes) -> bool:
    if step.kind is StepKind.EXACT:
        return step.value == value
    return step.kind is StepKind.BARE or matches(step.parts, value)


def text_of(raw: bytes) -> str:
    """Bytes of a request for people: UTF-8 where it is, escapes elsewhere."""
    return raw.decode("utf-8", errors="backslashreplace")
