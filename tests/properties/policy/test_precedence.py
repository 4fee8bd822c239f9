"""Laws of precedence (GEP-713) over random policies on every level."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.policy.model import RateLimitPolicy, Strategy
from ratelimit_service.policy.targets import precedence
from ratelimit_service.policy.targets.precedence import Level, Standing, attach, in_force, live_rules, meet
from ratelimit_service.policy.targets.topology import Point
from support.attached import attached_policies, points

Meet = Callable[[RateLimitPolicy, Level, tuple[Standing, ...]], tuple[Standing, ...]]


def standing_at(policies: Sequence[RateLimitPolicy], point: Point) -> tuple[Standing, ...]:
    return in_force(attach(policies), point)


def names(standing: Sequence[Standing]) -> list[str]:
    return [rule.name for each in standing for rule in each.rules]


def is_override(policy: RateLimitPolicy) -> bool:
    return policy.spec.overrides is not None


def check_no_name_twice(standing: Sequence[Standing]) -> None:
    """A name means one rule at a point, whoever wrote it."""
    assert len(names(standing)) == len(set(names(standing)))


def check_every_rule_is_somebodys(standing: Sequence[Standing], at: Sequence[RateLimitPolicy | None]) -> None:
    """Rules come from the policy of their level, whole and live."""
    for each in standing:
        assert at[each.level] is each.policy
        assert each.rules
        assert set(each.rules) <= set(live_rules(each.policy))
    assert [each.level for each in standing] == sorted(each.level for each in standing)


def check_highest_override_is_whole(standing: Sequence[Standing], at: Sequence[RateLimitPolicy | None]) -> None:
    """Nothing takes a rule from an override but an override above it; defaults above may only add names."""
    for level, policy in enumerate(at):
        if policy is not None and is_override(policy) and live_rules(policy):
            assert [each.rules for each in standing if each.policy is policy and each.level == level] == [
                live_rules(policy)
            ]
            return


def check_lowest_default_is_whole(standing: Sequence[Standing], at: Sequence[RateLimitPolicy | None]) -> None:
    """Without overrides the most specific policy loses nothing."""
    present = [policy for policy in at if policy is not None and live_rules(policy)]
    if present and not any(map(is_override, present)):
        assert standing[-1].policy is present[-1]
        assert standing[-1].rules == live_rules(present[-1])


def check_patch_covers_every_name(standing: Sequence[Standing], at: Sequence[RateLimitPolicy | None]) -> None:
    """Where everything is Patch, no name is lost."""
    present = [policy for policy in at if policy is not None]
    layers = [policy.spec.overrides or policy.spec.defaults for policy in present]
    if all(layer is None or layer.strategy is Strategy.PATCH for layer in layers):
        assert set(names(standing)) == {rule.name for policy in present for rule in live_rules(policy)}


def check_laws(policies: Sequence[RateLimitPolicy], point: Point) -> None:
    attached = attach(policies)
    at = [attached.winners.get(target) if target else None for target in precedence.targets_at(point)]
    standing = in_force(attached, point)
    check_no_name_twice(standing)
    check_every_rule_is_somebodys(standing, at)
    check_highest_override_is_whole(standing, at)
    check_lowest_default_is_whole(standing, at)
    check_patch_covers_every_name(standing, at)


@given(attached_policies(), points)
def test_what_is_in_force_follows_the_laws(policies: list[RateLimitPolicy], point: Point) -> None:
    """Names, levels, overrides and defaults."""
    check_laws(policies, point)


@given(attached_policies(), points, st.randoms(use_true_random=False))
def test_order_does_not_matter_where_ages_are_known(
    policies: list[RateLimitPolicy], point: Point, random: object
) -> None:
    """Creation time, then namespace and name decide; the order in which a watch tells of policies does not."""
    dated = [
        msgspec.structs.replace(
            policy,
            metadata=msgspec.structs.replace(
                policy.metadata, creation_timestamp=policy.metadata.creation_timestamp or "2026-01-03T00:00:00Z"
            ),
        )
        for policy in policies
    ]
    shuffled = list(dated)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert standing_at(dated, point) == standing_at(shuffled, point)


@given(attached_policies(), points)
def test_a_loser_changes_nothing(policies: list[RateLimitPolicy], point: Point) -> None:
    """A policy that holds none of its targets may as well not be there."""
    attached = attach(policies)
    holding = {id(policy) for policy in attached.winners.values()}
    kept = [policy for policy in policies if id(policy) in holding]

    assert standing_at(kept, point) == standing_at(policies, point)


def lower_wins_overrides(policy: RateLimitPolicy, level: Level, below: tuple[Standing, ...]) -> tuple[Standing, ...]:
    """Planted: overrides met as if they were defaults."""
    if policy.spec.overrides is None:
        return meet(policy, level, below)
    spec = msgspec.structs.replace(policy.spec, overrides=None, defaults=policy.spec.overrides)
    got = meet(msgspec.structs.replace(policy, spec=spec), level, below)
    return tuple(msgspec.structs.replace(each, policy=policy) if each.level is level else each for each in got)


def atomic_is_patch(policy: RateLimitPolicy, level: Level, below: tuple[Standing, ...]) -> tuple[Standing, ...]:
    """Planted: names are never compared, so that one name is in force twice."""
    own = live_rules(policy)
    return (Standing(policy, level, own), *below) if own else below


def atomic_defaults_replace(policy: RateLimitPolicy, level: Level, below: tuple[Standing, ...]) -> tuple[Standing, ...]:
    """Planted: Atomic defaults push away what is below."""
    layer = policy.spec.defaults
    own = live_rules(policy)
    if layer is not None and layer.strategy is Strategy.ATOMIC and own:
        return (Standing(policy, level, own),)
    return meet(policy, level, below)


@pytest.mark.parametrize("planted", [lower_wins_overrides, atomic_is_patch, atomic_defaults_replace])
def test_planted_mistakes_are_caught(planted: Meet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake breaks a law on some set of policies."""
    from hypothesis import find, settings

    monkeypatch.setattr(precedence, "meet", planted)

    def broken(case: tuple[list[RateLimitPolicy], Point]) -> bool:
        try:
            check_laws(*case)
        except AssertionError:
            return True
        return False

    find(st.tuples(attached_policies(), points), broken, settings=settings(max_examples=3000, database=None))
