"""Laws of the plan over every way in which a few policies and profiles can meet, one world after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from ratelimit_operator.plan import planning, precedence
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.planning import Plan, plan
from ratelimit_operator.plan.precedence import Contests, Standing
from ratelimit_operator.plan.world import ObservedPolicy, ObservedProfile, World
from ratelimit_service.policy.compile import plan_set
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.problems import Severity
from ratelimit_service.policy.profile_model import CacheProfile
from support.plan_worlds import histories, of, policy, profile, rule, shuffled, world

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
    assert _remembers_nothing(worlds)


def _promotes(worlds: list[World]) -> bool:
    """Whether without the oldest policy what it had overridden is in force, and nothing that was in force is lost."""
    last, contests = worlds[-1], Contests()
    with_all = plan(last, Live(), contests)
    served = sorted(
        (each for each in last.policies.values() if each.key in with_all.live.policies),
        key=lambda each: (each.created, each.key),
    )
    if not served:
        return True
    winner = served[0]
    rest = {key: each for key, each in last.policies.items() if key != winner.key}

    without = plan(msgspec.structs.replace(last, policies=rest), with_all.live, contests)

    for key in with_all.live.policies.keys() - {winner.key}:
        names = [each.partition(": ")[2] for each in without.policies[key].standing.overridden_by]
        if winner.key in names:
            return False
        if without.policies[key].standing.in_force < with_all.policies[key].standing.in_force:
            return False
    return True


@given(histories())
def test_a_removed_winner_leaves_its_rules_to_the_loser(worlds: list[World]) -> None:
    """Deleting the winner promotes the loser."""
    assert _promotes(worlds)


def _oldest_hold(worlds: list[World]) -> bool:
    """Whether the oldest policy of each domain has every rule of its own in force, and no older one's loss is told."""
    for each_world, planned in zip(worlds, _plans(worlds), strict=True):
        age = {key: (each.created, key) for key, each in each_world.policies.items()}
        for key, each in planned.policies.items():
            for lost in each.standing.overridden_by:
                if age[lost.partition(": ")[2]] >= age[key]:
                    return False
    return True


@given(histories())
def test_an_older_policy_loses_to_nobody_younger(worlds: list[World]) -> None:
    """Creation time, then the name: the same on every operator and after every restart."""
    assert _oldest_hold(worlds)


def _remembers_nothing(worlds: list[World]) -> bool:
    """Whether a plan without a memory of former domains decides the same."""
    live = Live()
    for each, planned in zip(worlds, _plans(worlds), strict=True):
        if plan(each, live, Contests()).policies != planned.policies:
            return False
        live = planned.live
    return True


def _is_one_order(worlds: list[World]) -> bool:
    """Whether two operators that saw the same objects in opposite orders decide the same."""
    order = ["b/q", "b/p", "a/p", "b/y", "b/x", "a/y", "a/x"]
    return _plans(worlds) == _plans([shuffled(each, order) for each in worlds])


def _world_of(*objects: ObservedPolicy | ObservedProfile) -> World:
    policies = [each for each in objects if isinstance(each.manifest, RateLimitPolicy)]
    profiles = [each for each in objects if isinstance(each.manifest, CacheProfile)]
    return world(of(*policies), of(*profiles), {name: {"tidegate.dev/platform": "true"} for name in ("a", "b")})


def _one(key: str, created: int, requests: int = 5, generation: int = 1, **spec: object) -> ObservedPolicy:
    rules = [rule("r1", requests=requests)]
    return policy(key, {"domain": "a.web", "rules": rules, **spec}, created=created, generation=generation)


TWO = [_world_of(_one("a/x", 0), _one("b/x", 1))]
THEN_CHANGED = [TWO[0], _world_of(_one("a/x", 0), _one("b/y", 1))]


def _as_many(left: Sequence[RateLimitPolicy], right: Sequence[RateLimitPolicy]) -> bool:
    """Planted: a domain with as many policies as before is not decided again."""
    return len(left) == len(right)


def _none_came(left: Sequence[RateLimitPolicy], right: Sequence[RateLimitPolicy]) -> bool:
    """Planted: a domain that only lost policies is not decided again."""
    return {id(each) for each in right} <= {id(each) for each in left}


def _decide_youngest(members: Sequence[RateLimitPolicy]) -> dict[str, Standing]:
    """Planted: the contest is decided from the other end."""
    standings = _DECIDE(members)
    names = list(standings)
    swapped = dict(zip(names, reversed(list(standings.values())), strict=True))
    return {
        name: Standing(each.in_force, tuple(f"{lost.partition(': ')[0]}: {names[-1]}" for lost in each.overridden_by))
        for name, each in swapped.items()
    }


def _oldest_first_by_sight(world: World) -> list[ObservedPolicy]:
    """Planted: the order of precedence is the order in which objects were seen."""
    return list(world.policies.values())


_DECIDE = precedence._decide
SEATS = [
    _world_of(
        profile("a/p", {"allowedNamespaces": {"from": "All"}}),
        profile("b/p", {"allowedNamespaces": {"from": "All"}}),
        _one("a/x", 0, cacheProfileRef={"name": "p"}),
        _one("b/x", 1, cacheProfileRef={"name": "p"}),
    )
]
BUGS: list[tuple[object, str, Callable[..., object], Callable[[list[World]], bool], list[World]]] = [
    (precedence, "_decide", _decide_youngest, _oldest_hold, TWO),
    (precedence, "_same", _none_came, _promotes, TWO),
    (precedence, "_same", _as_many, _remembers_nothing, THEN_CHANGED),
    (planning, "_oldest_first", _oldest_first_by_sight, _is_one_order, SEATS),
]


@pytest.mark.parametrize(
    ("owner", "name", "broken", "law", "worlds"),
    BUGS,
    ids=[f"{each[2].__name__}-{each[3].__name__}" for each in BUGS],
)
def test_a_planted_bug_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    broken: Callable[..., object],
    law: Callable[[list[World]], bool],
    worlds: list[World],
) -> None:
    """The worlds keep the law without it and break it with it."""
    assert law(worlds)
    monkeypatch.setattr(owner, name, broken)

    assert not law(worlds)


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
