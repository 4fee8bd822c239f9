"""Rules that some requests cannot reach, because matching does not go back (DECISIONS 10).

A value that meets a more exact branch is judged there and only there. Where that branch lacks what a wider one
offers, the wider rule is shadowed for this value, which is seldom meant: its author is warned.
A branch that ends in a pass or an Allow, with nothing below, is taken as meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ratelimit_service.policy.match import first_pattern, matches
from ratelimit_service.policy.placed import Placed
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.snapshot import Action, Node
from ratelimit_service.policy.tree import Step, StepKind, chain_text

MAX_BRANCHES = 64
"""Branches beside one step of a rule that are examined at most: the check must not be quadratic."""


def shadowed_rules(root: Node, leaves: Sequence[Placed]) -> Iterator[Problem]:
    """At most one warning for each rule, in config order."""
    for placed in leaves:
        rule = placed.leaf.rule
        message = _shadow(root, placed.leaf.chain) if rule is not None else None
        if rule is not None and message is not None:
            yield placed.place.problem(f"rule `{rule.name}` {message}", Severity.WARNING)


def _shadow(root: Node, chain: Sequence[Step]) -> str | None:
    node = root
    for index, step in enumerate(chain):
        rest = chain[index + 1 :]
        for rival, child in islice(_rivals(node, step), MAX_BRANCHES):
            if _covers(rival, step):
                return f"is never reached: `{rival}` is tried before `{step}` and takes every value of it"
            if not _is_meant(child) and not _offers(child, rest):
                needed = f"({chain_text(rest)})" if rest else "that ends there"
                return (
                    f"is not reached through `{rival}`: that branch is tried before `{step}`, has nothing "
                    f"for a descriptor {needed}, and matching does not go back"
                )
        node = _follow(node, step)
    return None


def _rivals(node: Node, step: Step) -> Iterator[tuple[Step, Node]]:
    """Branches that are tried before this step and take some of its values."""
    if step.kind is StepKind.EXACT:
        return
    for pattern in node.patterns.get(step.key, ()):
        rival = Step(step.key, StepKind.PATTERN, pattern.text, pattern.parts)
        if step.kind is StepKind.PATTERN:
            if pattern.parts == step.parts:
                break
            if not _covers(rival, step):
                continue
        yield rival, pattern.node
    for value, child in node.exact.get(step.key, {}).items():
        if step.kind is StepKind.BARE or matches(step.parts, value):
            yield Step(step.key, StepKind.EXACT, value), child


def _covers(rival: Step, step: Step) -> bool:
    """Whether a pattern takes every value that the step takes."""
    if rival.kind is not StepKind.PATTERN:
        return False
    if step.kind is StepKind.BARE:
        return not any(rival.parts)
    # A pattern that matches another's text, whatever its `*` stand for, takes all that the other takes.
    return matches(rival.parts, step.value)


def _is_meant(node: Node) -> bool:
    """A branch that ends in a pass or an Allow."""
    if node.exact or node.patterns or node.bare:
        return False
    return node.rule is None or node.rule.action is Action.ALLOW


def _offers(node: Node, rest: Sequence[Step]) -> bool:
    """Whether a descriptor for `rest` ends at a rule, or in a pass that is meant, below this branch."""
    for step in rest:
        child = _wide(node, step)
        if child is None:
            return False
        node = child
    return node.rule is not None or _is_meant(node)


def _wide(node: Node, step: Step) -> Node | None:
    """The branch that takes every value of the step."""
    if step.kind is StepKind.EXACT:
        child = node.exact.get(step.key, {}).get(step.value)
        pattern = first_pattern(node.patterns.get(step.key, ()), step.value)
        if child is not None or pattern is not None:
            return child if child is not None else (pattern.node if pattern is not None else None)
    else:
        for candidate in node.patterns.get(step.key, ()):
            if _covers(Step(step.key, StepKind.PATTERN, candidate.text, candidate.parts), step):
                return candidate.node
    return node.bare.get(step.key)


def _follow(node: Node, step: Step) -> Node:
    """The child that this very step leads to; it is there, because the tree holds the chain."""
    if step.kind is StepKind.EXACT:
        return node.exact[step.key][step.value]
    if step.kind is StepKind.BARE:
        return node.bare[step.key]
    return next(pattern.node for pattern in node.patterns[step.key] if pattern.parts == step.parts)
