"""Matching is a plain reading of the rules: exact value, then patterns in order, then the bare key; never back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.policy.match import Entries, first_pattern, match, matches, trace
from ratelimit_service.policy.snapshot import Action, Domain, Rule
from ratelimit_service.policy.tree import Chain, Leaf, Step, StepKind, build_tree

_KEYS = st.sampled_from([b"a", b"b"])
_VALUES = st.sampled_from([b"", b"x", b"xy", b"yx", b"x*"])
_PATTERNS = st.sampled_from([b"*", b"x*", b"*x", b"x*y", b"**"])


def _exact(key: bytes, value: bytes) -> Step:
    return Step(key, StepKind.EXACT, value)


def _pattern(key: bytes, text: bytes) -> Step:
    return Step(key, StepKind.PATTERN, text, tuple(text.split(b"*")))


def _bare(key: bytes) -> Step:
    return Step(key, StepKind.BARE)


steps = st.one_of(st.builds(_exact, _KEYS, _VALUES), st.builds(_pattern, _KEYS, _PATTERNS), st.builds(_bare, _KEYS))
chains = st.lists(steps, min_size=1, max_size=3).map(tuple)
configs = st.lists(chains, max_size=6, unique=True)
requests = st.lists(st.tuples(_KEYS, _VALUES), max_size=3)


def _leaves(config: Sequence[Chain]) -> list[Leaf]:
    return [Leaf(chain, Rule(domain="d", name=str(index), action=Action.ALLOW)) for index, chain in enumerate(config)]


def _domain(leaves: Sequence[Leaf]) -> Domain:
    return Domain("d", "", build_tree(leaves), tuple(leaf.rule for leaf in leaves if leaf.rule is not None))


def _takes(step: Step, value: bytes) -> bool:
    text = re.escape(step.value).replace(rb"\*", b".*")
    return {
        StepKind.EXACT: step.value == value,
        StepKind.PATTERN: re.fullmatch(text, value, re.DOTALL) is not None,
        StepKind.BARE: True,
    }[step.kind]


def _read(leaves: Sequence[Leaf], entries: Entries) -> Rule | None:
    """The rules read as a list: at each entry the best branch is chosen, and only its rules are read on."""
    if not entries:
        return next((leaf.rule for leaf in leaves if not leaf.chain), None)
    key, value = entries[0]
    order = [StepKind.EXACT, StepKind.PATTERN, StepKind.BARE]
    fitting = [leaf.chain[0] for leaf in leaves if leaf.chain and leaf.chain[0].key == key]
    fitting = [step for step in fitting if _takes(step, value)]
    chosen = min(fitting, key=lambda step: order.index(step.kind), default=None)
    below = [Leaf(leaf.chain[1:], leaf.rule) for leaf in leaves if leaf.chain and leaf.chain[0] == chosen]
    return _read(below, entries[1:]) if below else None


def _holds(config: Sequence[Chain], entries: Entries, matcher: Callable[[Domain, Entries], Rule | None]) -> bool:
    leaves = _leaves(config)
    return matcher(_domain(leaves), entries) == _read(leaves, entries)


@given(configs, requests)
@example([(_exact(b"a", b"x"), _bare(b"b")), (_bare(b"a"),)], [(b"a", b"x")])
@example([(_pattern(b"a", b"x*"),), (_pattern(b"a", b"*"), _bare(b"b"))], [(b"a", b"xy"), (b"b", b"")])
def test_match_is_a_plain_reading_of_the_rules(config: list[Chain], entries: list[tuple[bytes, bytes]]) -> None:
    """The tree gives what reading the list of rules gives."""
    assert _holds(config, entries, match)


@given(configs, requests)
def test_trace_tells_what_match_does(config: list[Chain], entries: list[tuple[bytes, bytes]]) -> None:
    """An explanation never names another rule, and a rule is either met or a candidate."""
    domain = _domain(_leaves(config))

    told = trace(domain, entries)

    assert told.rule == match(domain, entries)
    assert told.rule not in [candidate.rule for candidate in told.candidates]
    assert all(step.why for step in told.steps)


def _goes_back(domain: Domain, entries: Entries) -> Rule | None:
    """Planted: a matcher that tries the bare key when the exact branch has no rule."""
    found = match(domain, entries)
    bare = Domain("d", "", domain.root, ())
    root = bare.root
    return found or (root.bare[entries[0][0]].rule if entries and entries[0][0] in root.bare else None)


def _bare_before_patterns(domain: Domain, entries: Entries) -> Rule | None:
    """Planted: a matcher that prefers the bare key to a pattern."""
    bare = domain.root.bare.get(entries[0][0])
    return bare.rule if bare is not None else match(domain, entries)


def _last_pattern_wins(domain: Domain, entries: Entries) -> Rule | None:
    """Planted: a matcher that takes the last pattern instead of the first."""
    key, value = entries[0]
    found = first_pattern(domain.root.patterns[key][::-1], value)
    return found.node.rule if found is not None else None


def _any_depth(domain: Domain, entries: Entries) -> Rule | None:
    """Planted: a matcher that takes a rule found before the last entry."""
    return match(domain, entries) or match(domain, entries[:1])


@pytest.mark.parametrize(
    ("mutant", "config", "entries"),
    [
        (_goes_back, [(_exact(b"a", b"x"), _bare(b"b")), (_bare(b"a"),)], [(b"a", b"x")]),
        (_bare_before_patterns, [(_pattern(b"a", b"x*"),), (_bare(b"a"),)], [(b"a", b"x")]),
        (_last_pattern_wins, [(_pattern(b"a", b"x*"),), (_pattern(b"a", b"*"),)], [(b"a", b"x")]),
        (_any_depth, [(_bare(b"a"),)], [(b"a", b"x"), (b"b", b"y")]),
    ],
)
def test_the_law_rejects_planted_matchers(
    mutant: Callable[[Domain, Entries], Rule | None], config: list[Chain], entries: list[tuple[bytes, bytes]]
) -> None:
    """Backtracking, a wrong order and a rule that is too shallow are caught."""
    assert not _holds(config, entries, mutant)


patterns = st.text(alphabet="ab*", min_size=1, max_size=6).filter(lambda text: "*" in text)
texts = st.text(alphabet="ab", max_size=6)


def _agrees(matcher: Callable[[Sequence[bytes], bytes], bool], pattern: str, text: str) -> bool:
    expected = re.fullmatch(pattern.replace("*", ".*"), text) is not None
    return matcher(pattern.encode().split(b"*"), text.encode()) == expected


@given(patterns, texts)
@example("a*a", "a")
@example("*ab*b", "ab")
@example("a*b*b", "abb")
def test_a_pattern_matches_as_a_shell_reads_it(pattern: str, text: str) -> None:
    """`*` is any run of bytes, also none, and everything else is itself."""
    assert _agrees(matches, pattern, text)


def _overlapping(parts: Sequence[bytes], value: bytes) -> bool:
    """Planted: the first and the last part may share bytes."""
    return value.startswith(parts[0]) and value.endswith(parts[-1])


def _prefix_only(parts: Sequence[bytes], value: bytes) -> bool:
    """Planted: only a `*` at the end is known."""
    return value.startswith(parts[0])


@pytest.mark.parametrize(("mutant", "pattern", "text"), [(_overlapping, "a*a", "a"), (_prefix_only, "a*b", "aa")])
def test_the_pattern_law_rejects_planted_matchers(
    mutant: Callable[[Sequence[bytes], bytes], bool], pattern: str, text: str
) -> None:
    """Overlapping ends and a prefix-only reading are caught."""
    assert not _agrees(mutant, pattern, text)
