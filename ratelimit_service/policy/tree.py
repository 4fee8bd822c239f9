"""Chains of entries, and the tree that they make.

A `Leaf` is one line of a domain's plan; `TreeBuilder` hangs leaves into a tree one by one, so that a caller may
do it in slices.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

import msgspec

from ratelimit_service.policy.snapshot import Node, Pattern, Rule


class StepKind(enum.Enum):
    """How an entry's value is compared."""

    EXACT = "exact"
    PATTERN = "pattern"
    BARE = "bare"


class Step(msgspec.Struct, frozen=True):
    """One entry of a chain.

    Attributes:
        key: Key of the entry.
        kind: How its value is compared.
        value: EXACT: the value; PATTERN: its text with `*`; BARE: empty.
        parts: PATTERN: the literal parts, at least two; else empty.
    """

    key: bytes
    kind: StepKind
    value: bytes = b""
    parts: tuple[bytes, ...] = ()

    def __str__(self) -> str:
        key = self.key.decode(errors="backslashreplace")
        return key if self.kind is StepKind.BARE else f"{key}={self.value.decode(errors='backslashreplace')}"


Chain = tuple[Step, ...]
"""The entries of a rule, in order."""


def chain_text(chain: Sequence[Step]) -> str:
    """A chain for people: `plan=gold, method`."""
    return ", ".join(str(step) for step in chain)


class Leaf(msgspec.Struct, frozen=True):
    """What stands at the end of a chain; without a rule it is an explicit pass."""

    chain: Chain
    rule: Rule | None


class TreeBuilder:
    """Builds one domain's tree. Chains are unique; the order of leaves is the order of patterns."""

    def __init__(self) -> None:
        self.root = Node()
        # Per node and key, the patterns by their parts: a tuple that grows would be quadratic.
        self._patterns: dict[tuple[int, bytes], tuple[Node, dict[tuple[bytes, ...], Pattern]]] = {}

    def add(self, leaf: Leaf) -> None:
        """Hang one leaf into the tree."""
        node = self.root
        for step in leaf.chain:
            node = self._child(node, step)
        node.rule = leaf.rule

    def _child(self, node: Node, step: Step) -> Node:
        if step.kind is StepKind.EXACT:
            return _kept(node.exact.setdefault(step.key, {}), step.value)
        if step.kind is StepKind.BARE:
            return _kept(node.bare, step.key)
        _, known = self._patterns.setdefault((id(node), step.key), (node, {}))
        pattern = known.get(step.parts)
        if pattern is None:
            pattern = known[step.parts] = Pattern(step.value, step.parts, Node())
        return pattern.node

    def finish(self) -> Iterator[None]:
        """Put the patterns in place, a node at a time; the tree is complete when this is exhausted."""
        for (_, key), (node, known) in self._patterns.items():
            node.patterns[key] = tuple(known.values())
            yield


def _kept(nodes: dict[bytes, Node], name: bytes) -> Node:
    node = nodes.get(name)
    if node is None:
        node = nodes[name] = Node()
    return node


def build_tree(leaves: Sequence[Leaf]) -> Node:
    """The whole tree at one go."""
    builder = TreeBuilder()
    for leaf in leaves:
        builder.add(leaf)
    for _ in builder.finish():
        pass
    return builder.root


def branches(node: Node) -> Iterator[tuple[Step, Node]]:
    """The branches of a node in the order in which they are tried, key by key."""
    for key, values in node.exact.items():
        for value, child in values.items():
            yield Step(key, StepKind.EXACT, value), child
    for key, patterns in node.patterns.items():
        for pattern in patterns:
            yield Step(key, StepKind.PATTERN, pattern.text, pattern.parts), pattern.node
    for key, child in node.bare.items():
        yield Step(key, StepKind.BARE), child


def walk_rules(root: Node) -> Iterator[tuple[Chain, Rule]]:
    """Every rule of a tree with its chain, with a stack of its own: no depth can exhaust Python's."""
    pending: list[tuple[Chain, Node]] = [((), root)]
    while pending:
        chain, node = pending.pop()
        if node.rule is not None:
            yield chain, node.rule
        pending.extend(reversed([((*chain, step), child) for step, child in branches(node)]))
