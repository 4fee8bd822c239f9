"""Kept sets: which stay, and what is given out and told while one of them is gone back to."""

from __future__ import annotations

import pytest

from ratelimit_operator.api.conditions import ConditionType
from ratelimit_operator.flags import InvalidOptions, decode_options
from ratelimit_operator.plan.distribution import Distribution, Enforcement, ResourceId, distribution_of
from ratelimit_operator.plan.history import (
    HISTORY_LABEL,
    KEPT_LABEL,
    KeptSet,
    gone_back,
    kept_sets,
    outdated,
    part_name,
    withheld,
)
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.planning import Plan, plan
from ratelimit_operator.plan.precedence import Contests
from ratelimit_operator.plan.statuses import Replicas, policy_status
from ratelimit_operator.plan.world import ObservedPolicy
from ratelimit_operator.xds.bootstrap import bootstrap_parts, distribution_in
from support.plan_worlds import of, policy, rule, world

X, Y = ResourceId("Policy", "a/x"), ResourceId("Policy", "b/y")


def seen(key: str, requests: int) -> ObservedPolicy:
    """A policy with one limit."""
    return policy(key, {"domain": f"{key[0]}.web", "rules": [rule("r1", requests=requests)]})


def planned(*policies: ObservedPolicy, enforcement: Enforcement = Enforcement.ENFORCE) -> Plan:
    """The plan of these alone."""
    given = world(of(*policies))
    return plan(type(given)(given.policies, {}, {}, given.scope, enforcement), Live(), Contests())


def test_a_kept_set_is_known_by_the_labels_of_its_config_maps() -> None:
    """Oldest first, parts in order; what lacks a label is nobody's."""
    labels = {version: {HISTORY_LABEL: version, KEPT_LABEL: at} for version, at in (("v1", "2"), ("v2", "1"))}
    found = kept_sets(
        [
            (part_name("v1", 1), labels["v1"]),
            ("odd", {HISTORY_LABEL: "v3"}),
            (part_name("v2", 0), labels["v2"]),
            (part_name("v1", 0), labels["v1"]),
        ]
    )

    assert found == [
        KeptSet("1", "v2", ("tidegate-history-v2-0",)),
        KeptSet("2", "v1", ("tidegate-history-v1-0", "tidegate-history-v1-1")),
    ]


@pytest.mark.parametrize(("most", "in_use", "gone"), [(2, "", ["v1"]), (2, "v1", []), (5, "", []), (1, "v2", ["v1"])])
def test_only_the_newest_stay_and_the_one_in_use(most: int, in_use: str, gone: list[str]) -> None:
    """Whatever their order."""
    kept = [KeptSet("3", "v3"), KeptSet("1", "v1"), KeptSet("2", "v2")]

    assert [each.version for each in outdated(kept, most, in_use)] == gone


def test_going_back_takes_the_policies_and_not_the_switches() -> None:
    """The kill switch works during a rollback."""
    before = planned(seen("a/x", 5)).distribution
    now = planned(seen("a/x", 7), enforcement=Enforcement.SHADOW).distribution

    given = gone_back(before, now)

    settings = ResourceId("Settings", "tidegate/settings")
    assert given.resources[X] == before.resources[X]
    assert given.resources[settings] == now.resources[settings]


def test_what_is_not_given_out_is_told_and_the_rest_is_not() -> None:
    """A policy that the kept set has in its present form is as it would be without a rollback."""
    before = planned(seen("a/x", 5), seen("c/z", 1)).distribution
    now = planned(seen("a/x", 7), seen("b/y", 1), seen("c/z", 1)).distribution

    told = withheld(now, gone_back(before, now), "v1")

    assert told.keys() == {X, Y}
    assert f"rolled back to set v1: replicas run its form {before.resources[X].version} until" in told[X]
    assert "replicas do not have it until" in told[Y]
    assert withheld(now, now, "") == {}


def test_a_policy_that_waits_for_the_end_of_a_rollback_is_not_programmed() -> None:
    """However many replicas have acknowledged what they were given."""
    given = seen("a/x", 7)
    replicas = Replicas({X: 3}, 3, {}, {X: "rolled back to set v1: …"})

    status = policy_status(given, planned(given).policies["a/x"], None, replicas, "tidegate", "now")

    found = next(each for each in status.conditions if each.type == ConditionType.PROGRAMMED.value)
    assert (found.status.value, found.reason, found.message) == ("False", "Reconciling", "rolled back to set v1: …")


def test_the_parts_of_a_set_give_it_back() -> None:
    """And without all of them there is none."""
    before: Distribution = planned(seen("a/x", 5), seen("b/y", 7)).distribution

    assert distribution_in(bootstrap_parts(before, 1))[0] == before == distribution_of(before.resources.values())
    assert distribution_in([]) == (None, [])


@pytest.mark.parametrize("text", ["-1", "51", "many", "½"])
def test_a_length_of_history_that_is_none_is_told(text: str) -> None:
    """With the flag and the bounds."""
    with pytest.raises(InvalidOptions, match=f"--history: `{text}` is no number from 0 to 50"):
        decode_options({"--history": [text]})


def test_no_history_is_a_choice() -> None:
    """0 keeps none, and asks for no right."""
    assert decode_options({"--history": ["0"]}).history == 0
    assert decode_options({}).history == 5
