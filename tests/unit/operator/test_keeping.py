"""Forms that are kept over restarts, and events that are told once."""

from __future__ import annotations

from ratelimit_operator.api.conditions import Condition, ConditionStatus
from ratelimit_operator.api.objects import observe_policy
from ratelimit_operator.plan.announcements import BURST, Announcement, SpamFilter, Transitions
from ratelimit_operator.plan.distribution import distribution_of, settled
from ratelimit_operator.plan.live import Live, dated, live_of
from ratelimit_operator.plan.planning import plan
from ratelimit_operator.plan.precedence import Contests
from support.plan_worlds import body, of, policy, profile, rule, world

SPEC = {"domain": "a.web", "rules": [rule("r1")], "cacheProfileRef": {"name": "p"}}


def test_a_kept_set_gives_the_forms_back() -> None:
    """What a plan had live is live in a process that begins with its distribution, generations aside."""
    before = plan(world(of(policy("a/x", SPEC, generation=4)), of(profile("a/p", {}))), Live(), Contests())

    live = live_of(before.distribution)
    invalid = policy("a/x", {**SPEC, "rules": [{**rule("r1"), "replaces": ["x"]}]}, generation=5)
    after = plan(world(of(invalid), of(profile("a/p", {}))), live, Contests())

    assert after.distribution == before.distribution
    assert dated(live.policies["a/x"], 4, live.policies["a/x"].resource.version).generation == 4
    assert dated(live.policies["a/x"], 4, "another").generation == 0


def test_a_kept_form_that_cannot_be_read_is_left_out() -> None:
    """A later version may have written it."""
    given = plan(world(of(policy("a/x", {"domain": "a.web", "rules": [rule("r1")]}))), Live(), Contests())
    (resource,) = (each for each in given.distribution.resources.values() if each.id.kind == "Policy")
    odd = type(resource)(resource.id, "1", b'{"kind": "RateLimitPolicy"}', ())

    assert live_of(distribution_of([odd])) == Live({}, {})


def test_a_refused_form_is_not_kept() -> None:
    """The last accepted one is, or none where there never was one."""
    first = plan(world(of(policy("a/x", {"domain": "a.web", "rules": [rule("r1")]}))), Live(), Contests()).distribution
    second = plan(
        world(
            of(
                policy("a/x", {"domain": "a.web", "rules": [rule("r2")]}),
                policy("b/y", {"domain": "b.web", "rules": [rule("r1")]}),
            )
        ),
        Live(),
        Contests(),
    ).distribution
    refused = {each: "no" for each in second.resources if each.kind == "Policy"}

    kept = settled(second, refused, first)

    assert {str(each) for each in kept.resources} == {"Policy a/x", "Settings tidegate/settings"}
    assert kept == first
    assert settled(second, {}, first) is second
    assert [each.kind for each in settled(second, refused, None).resources] == ["Settings"]


def _condition(type_: str, reason: str, holds: bool, message: str = "") -> Condition:
    return Condition(
        type=type_,
        status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
        last_transition_time="",
        reason=reason,
        message=message,
    )


def announcements(before: list[Condition], after: list[Condition]) -> list[Announcement]:
    """What a process tells that knows nothing else."""
    return Transitions().between("u", before, after)


def test_only_what_turned_is_announced() -> None:
    """Neither what is on its way, nor what is well at first sight, nor Ready, which repeats the rest."""
    fine = _condition("Accepted", "Accepted", holds=True)
    bad = _condition("Accepted", "Invalid", holds=False, message="spec.x: no")
    done = _condition("Programmed", "Programmed", holds=True, message="3 of 3")

    assert announcements([], [fine]) == []
    assert announcements([], [bad]) == [Announcement(True, "Invalid", "spec.x: no")]
    assert announcements([bad], [bad]) == []
    assert announcements([bad], [fine]) == [Announcement(False, "Accepted", "Accepted is True")]
    assert announcements([], [done]) == [Announcement(False, "Programmed", "3 of 3")]
    assert announcements([done], [_condition("Programmed", "Reconciling", holds=False)]) == []
    assert announcements([done], [_condition("Ready", "Invalid", holds=False)]) == []
    assert announcements([done], [_condition("Programmed", "NoReplicas", holds=False)]) == []
    overridden = announcements([done], [_condition("Programmed", "Overridden", holds=False, message="by")])
    assert overridden == [Announcement(False, "Overridden", "by")]


def test_a_way_that_ends_where_it_began_is_no_transition() -> None:
    """An operator or a replica restarts: programmed, on its way, programmed; only another end is told."""
    turns = Transitions()
    done = _condition("Programmed", "Programmed", holds=True, message="3 of 3")
    way = _condition("Programmed", "Reconciling", holds=False)
    bad = _condition("Programmed", "Rejected", holds=False, message="no")

    told = [turns.between("u", before, after) for before, after in (([done], [way]), ([way], [done]))]
    later = [turns.between("u", before, after) for before, after in (([done], [way]), ([way], [bad]), ([bad], [done]))]

    assert told == [[], []]
    assert [[each.reason for each in found] for found in later] == [[], ["Rejected"], ["Programmed"]]
    assert turns.between("known to an earlier process", [way], [done]) == []
    assert turns.between("new", [], [way]) == []
    assert [each.reason for each in turns.between("new", [way], [done])] == ["Programmed"]


def test_where_conditions_rest_is_forgotten_in_the_end() -> None:
    """Memory is bounded; what is forgotten is read from status."""
    turns = Transitions()
    done = _condition("Programmed", "Programmed", holds=True)
    for number in range(100_010):
        turns.between(f"u{number}", [done], [])

    assert len(turns._rests) == 100_000
    assert turns.between("u0", [done], [done]) == []


def test_the_same_words_are_not_repeated() -> None:
    """A policy that turns every second has two events, until ten minutes later."""
    spam = SpamFilter()
    words = [Announcement(True, "Invalid", "no"), Announcement(False, "Accepted", "yes")]

    said = [each for second in range(50) for each in words if spam.admits("u", each, float(second))]

    assert said == words
    assert spam.admits("u", words[0], 700.0)


def test_an_object_that_always_says_something_else_is_limited() -> None:
    """A burst, then one in five minutes."""
    spam = SpamFilter()

    admitted = [spam.admits("u", Announcement(True, "Invalid", str(number)), 0.0) for number in range(40)]

    assert sum(admitted) == BURST
    assert spam.admits("u", Announcement(True, "Invalid", "late"), 301.0)
    assert spam.admits("other", Announcement(True, "Invalid", "late"), 0.0)


def test_what_was_said_long_ago_is_forgotten() -> None:
    """Memory is bounded whatever comes and goes."""
    spam = SpamFilter()
    for number in range(10_050):
        spam.admits(f"u{number}", Announcement(True, "Invalid", "no"), float(number * 60))

    assert len(spam._said) < 100
    assert len(spam._objects) < 1_000


def test_other_releases_writes_are_known_by_their_field_managers() -> None:
    """Two releases that write one policy can each see it."""
    seen = body("RateLimitPolicy", "a/x", {"domain": "a.web", "rules": [rule("r1")]})
    seen["metadata"]["managedFields"] = [
        {"manager": "kubectl", "time": "t0"},
        {"manager": "tidegate-operator/two", "time": "t1"},
    ]

    assert observe_policy(seen).writers == (("tidegate-operator/two", "t1"),)
