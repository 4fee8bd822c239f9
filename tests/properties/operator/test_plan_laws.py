"""Laws of the plan over every way in which a few policies and profiles can meet, one world after the other."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from ratelimit_operator.plan import planning
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.planning import Plan, plan
from ratelimit_operator.plan.precedence import Contests
from ratelimit_operator.plan.world import World
from ratelimit_service.policy.compile import CompileOptions, plan_set
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.problems import Severity
from support.plan_worlds import histories, shuffled

Decide = Callable[[World, Live, Contests], Plan]


def _plans(worlds: list[World], decide: Decide = plan) -> list[Plan]:
    live, contests, found = Live(), Contests(), []
    for each in worlds:
        planned = decide(each, live, contests)
        live = planned.live
        found.append(planned)
    return found


def _compiles(worlds: list[World], decide: Decide = plan) -> bool:
    """Whether the service takes every distribution without a problem, and its conflicts are those that status tells."""
    for planned in _plans(worlds, decide):
        objects = []
        for resource in planned.distribution.resources.values():
            if resource.id.kind == "Settings":
                continue
            manifest, problems = decode_manifest(msgspec.json.decode(resource.body))
            if problems:
                return False
            objects.append(manifest)
        _, told = plan_set(objects, CompileOptions())
        if any(each.severity is Severity.ERROR for each in told):
            return False
        overridden = sum(len(each.standing.overridden_by) for each in planned.policies.values())
        if overridden != sum("is older and wins" in each.message for each in told):
            return False
    return True


def _keeps(worlds: list[World], decide: Decide = plan) -> bool:
    """Whether what was live stays as long as its object is there, and changes only to a form that is accepted."""
    plans = _plans(worlds, decide)
    for before, after, later in zip(plans, plans[1:], worlds[1:], strict=False):
        for key, form in before.live.policies.items():
            if key not in later.policies:
                continue
            now = after.live.policies.get(key)
            if now is None:
                return False
            planned = after.policies[key]
            if now.manifest != form.manifest and not (planned.accepted.holds and planned.refs.holds):
                return False
    return True


@given(histories(), st.permutations(["a/x", "a/y", "b/x", "b/y", "a/p", "b/p", "b/q"]))
def test_the_order_in_which_objects_were_seen_decides_nothing(worlds: list[World], order: list[str]) -> None:
    """Two operators that saw the same objects publish the same bytes and say the same."""
    one, other = _plans(worlds), _plans([shuffled(each, order) for each in worlds])

    for left, right in zip(one, other, strict=True):
        assert left.distribution == right.distribution
        assert left.policies == right.policies
        assert left.profiles == right.profiles


@given(histories())
def test_the_service_compiles_every_distribution(worlds: list[World]) -> None:
    """No set is ever refused for what the operator could have known, and both decide conflicts alike."""
    assert _compiles(worlds)


@given(histories())
def test_a_spec_that_is_not_accepted_takes_nothing_away(worlds: list[World]) -> None:
    """The last accepted form stays until a newer one is accepted or the object is gone."""
    assert _keeps(worlds)


@given(histories())
def test_a_plan_remembers_nothing_that_changes_it(worlds: list[World]) -> None:
    """What is known of former domains saves work and decides nothing."""
    live = Live()
    for each, planned in zip(worlds, _plans(worlds), strict=True):
        fresh = plan(each, live, Contests())
        assert fresh.policies == planned.policies
        live = planned.live


@given(histories())
def test_a_removed_winner_leaves_its_rules_to_the_loser(worlds: list[World]) -> None:
    """Without the oldest policy, what it had overridden is in force, and nothing that was in force is lost."""
    last = worlds[-1]
    with_all = _plans([last])[0]
    served = sorted(
        (each for each in last.policies.values() if each.key in with_all.live.policies),
        key=lambda each: (each.created, each.key),
    )
    if not served:
        return
    winner = served[0]
    rest = {key: each for key, each in last.policies.items() if key != winner.key}

    without = plan(msgspec.structs.replace(last, policies=rest), with_all.live, Contests())

    for key in with_all.live.policies.keys() - {winner.key}:
        names = [each.partition(": ")[2] for each in without.policies[key].standing.overridden_by]
        assert winner.key not in names
        assert without.policies[key].standing.in_force >= with_all.policies[key].standing.in_force


def _forgetful(world: World, live: Live, contests: Contests) -> Plan:
    """Planted: a spec that is not accepted is served no more."""
    return plan(world, Live(), contests)


@pytest.mark.parametrize("law", [_keeps], ids=["keeps"])
def test_a_plan_that_forgets_is_caught(law: Callable[[list[World], Decide], bool]) -> None:
    """The law has teeth."""
    found = find(histories(), lambda worlds: not law(worlds, _forgetful), settings=settings(max_examples=2_000))

    assert found


def test_a_second_default_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a form that stays live stays the default beside another one; the service would refuse the set."""
    from ratelimit_operator.plan import profiles

    monkeypatch.setattr(profiles, "without_default", lambda form: form)
    monkeypatch.setattr(planning, "without_default", lambda form: form)

    found = find(histories(), lambda worlds: not _compiles(worlds), settings=settings(max_examples=5_000))

    assert found


def test_nothing_is_found_where_nothing_is_planted() -> None:
    """The search itself finds no counterexample in the true plan."""
    with pytest.raises(NoSuchExample):
        find(
            histories(), lambda worlds: not (_compiles(worlds) and _keeps(worlds)), settings=settings(max_examples=100)
        )
