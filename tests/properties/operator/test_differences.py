"""What `tidegate diff` says: nothing if and only if nothing would change, and every rule that would."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_operator.plan import differences
from ratelimit_operator.plan.differences import Kind, PolicyChange, policy_change
from ratelimit_service.policy.encode import encode
from ratelimit_service.policy.model import RateLimitPolicy
from support.manifests import policies


def _alike(draw_from: st.DrawFn, policy: RateLimitPolicy, other: RateLimitPolicy) -> RateLimitPolicy:
    """The first policy with some of the other's rules and fields, so that both often share much."""
    kept = draw_from(st.integers(0, len(policy.spec.rules)))
    names = {rule.name for rule in policy.spec.rules[:kept]}
    taken = tuple(rule for rule in other.spec.rules if rule.name not in names)
    spec = other.spec if draw_from(st.booleans()) else policy.spec
    rules = (*policy.spec.rules[:kept], *taken) or policy.spec.rules
    return msgspec.structs.replace(policy, spec=msgspec.structs.replace(spec, rules=rules))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[RateLimitPolicy, RateLimitPolicy]:
    """Two forms of one policy."""
    policy = draw(policies)
    return policy, _alike(draw, policy, draw(policies))


def _holds(now: RateLimitPolicy, then: RateLimitPolicy) -> None:
    change = policy_change(now, then)
    before, after = (
        {rule.name: encode(each)["spec"]["rules"][index] for index, rule in enumerate(each.spec.rules)}  # type: ignore[index]
        for each in (now, then)
    )
    same_order = list(before) == [name for name in after if name in before]
    if change is None:
        assert before == after
        assert not same_order or encode(now)["spec"] == encode(then)["spec"]
        return
    told = {rule.name: rule.kind for rule in change.rules}
    assert told == {
        **dict.fromkeys(after.keys() - before.keys(), Kind.ADDED),
        **dict.fromkeys(before.keys() - after.keys(), Kind.REMOVED),
        **{name: Kind.CHANGED for name in before.keys() & after.keys() if before[name] != after[name]},
    }
    assert all(rule.fields for rule in change.rules if rule.kind is Kind.CHANGED)
    assert change.fields or change.rules


@given(pairs())
def test_every_rule_that_would_change_is_told_and_no_other(pair: tuple[RateLimitPolicy, RateLimitPolicy]) -> None:
    """Added, changed and removed ones by name; a changed one with at least one field."""
    _holds(*pair)


@given(policies)
def test_a_policy_does_not_differ_from_itself(policy: RateLimitPolicy) -> None:
    """However it is written."""
    assert policy_change(policy, policy) is None


@given(policies)
def test_a_new_policy_adds_all_its_rules(policy: RateLimitPolicy) -> None:
    """And says nothing else."""
    change = policy_change(None, policy)

    assert isinstance(change, PolicyChange)
    assert change.kind is Kind.ADDED
    assert [rule.name for rule in change.rules] == [rule.name for rule in policy.spec.rules]


def test_the_property_finds_a_comparison_that_forgets_removed_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: what is gone is not told."""
    real = differences._rule_changes

    def forgetful(before, after):
        return (each for each in real(before, after) if each.kind is not Kind.REMOVED)

    monkeypatch.setattr(differences, "_rule_changes", forgetful)
    with pytest.raises(AssertionError):
        test_every_rule_that_would_change_is_told_and_no_other()
