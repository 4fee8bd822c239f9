"""What status says of replicas, and when it is written."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_operator.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    Reason,
    failing,
    holding,
    shortened,
)
from ratelimit_operator.api.status import ProfileCopyStatus, RateLimitPolicyStatus
from ratelimit_operator.cluster.status_writer import status_body
from ratelimit_operator.plan.attachment import PolicyAttachment
from ratelimit_operator.plan.copies import CopyState
from ratelimit_operator.plan.distribution import ResourceId
from ratelimit_operator.plan.election import Election, Record, Step
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.pacing import COUNT_WAIT_S, SETTLE_S, Pacer
from ratelimit_operator.plan.planning import Plan, plan
from ratelimit_operator.plan.precedence import Contests
from ratelimit_operator.plan.statuses import Replicas, patience_s, policy_status, profile_status
from ratelimit_operator.plan.world import ObservedPolicy
from support.plan_worlds import of, policy, profile, rule, world

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"
X = ResourceId("Policy", "a/x")
POLICY = policy("a/x", {"domain": "a.web", "rules": [rule("r1")]})


def _plan(*policies: ObservedPolicy) -> Plan:
    return plan(world(of(*policies)), Live(), Contests())


def _status(acked: int, total: int, rejected: str = "", given: ObservedPolicy = POLICY) -> RateLimitPolicyStatus:
    replicas = Replicas({X: acked}, total, {X: rejected} if rejected else {})
    return policy_status(given, _plan(given).policies["a/x"], None, replicas, "tidegate", NOW)


def _condition(status: RateLimitPolicyStatus, type_: str) -> Condition:
    return next(each for each in status.conditions if each.type == type_)


@pytest.mark.parametrize(
    ("acked", "total", "rejected", "reason", "summary"),
    [
        (3, 3, "", "Programmed", "3/3"),
        (1, 3, "", "PartiallyProgrammed", "1/3"),
        (0, 3, "", "Reconciling", "0/3"),
        (0, 0, "", "NoReplicas", "0/0"),
        (0, 3, "unknown algorithm", "Rejected", "0/3"),
    ],
)
def test_programmed_counts_who_runs_this_form(acked: int, total: int, rejected: str, reason: str, summary: str) -> None:
    """Each case has its reason, and Ready follows."""
    status = _status(acked, total, rejected)

    assert _condition(status, "Programmed").reason == reason
    assert status.distribution.summary == summary
    assert (_condition(status, "Ready").status is ConditionStatus.TRUE) == (reason == "Programmed")
    assert status.distribution.last_error == (rejected or None)


@given(st.integers(0, 4), st.integers(0, 4), st.booleans(), st.booleans())
def test_status_never_claims_what_was_not_acknowledged(acked: int, total: int, rejected: bool, valid: bool) -> None:
    """Programmed is True only if every replica that there should be runs the present form."""
    spec = {"domain": "a.web", "rules": [rule("r1") if valid else {**rule("r1"), "replaces": ["x"]}]}
    status = _status(acked, total, "no" if rejected else "", policy("a/x", spec))

    programmed = [each for each in status.conditions if each.type == "Programmed"]
    claims = any(each.status is ConditionStatus.TRUE for each in programmed)
    assert claims == (valid and not rejected and acked >= total > 0)
    assert bool(programmed) == valid


def test_a_condition_that_does_not_turn_keeps_its_time() -> None:
    """Only a change of `status` is a transition."""
    first = _status(1, 3)
    again = msgspec.structs.replace(POLICY, status=first)
    replicas = Replicas({X: 2}, 3, {})

    later = policy_status(again, _plan(again).policies["a/x"], None, replicas, "tidegate", LATER)
    done = policy_status(again, _plan(again).policies["a/x"], None, Replicas({X: 3}, 3, {}), "tidegate", LATER)

    assert _condition(later, "Programmed").last_transition_time == NOW
    assert _condition(done, "Programmed").last_transition_time == LATER


def test_a_policy_whose_rules_are_all_overridden_says_so() -> None:
    """Overridden is no failure of the replicas."""
    old = policy("a/w", {"domain": "a.web", "rules": [rule("r1")]}, created=1)
    new = policy("a/x", {"domain": "a.web", "rules": [rule("r1")]}, created=2)

    status = policy_status(new, _plan(old, new).policies["a/x"], None, Replicas({X: 3}, 3, {}), "tidegate", NOW)

    assert _condition(status, "Programmed").reason == "Overridden"
    assert status.effective.overridden_by == ("r1: a/w",)


def test_a_form_that_waits_for_its_profile_is_not_programmed() -> None:
    """Whatever the replicas run, it is not this form."""
    waiting = policy("a/x", {"domain": "a.web", "rules": [rule("r1")], "cacheProfileRef": {"name": "p"}})

    status = _status(3, 3, given=waiting)

    assert _condition(status, "Programmed").reason == "Reconciling"
    assert _condition(status, "Ready").reason == "CacheProfileNotFound"
    assert status.distribution.version == ""


TARGETED = policy(
    "a/x",
    {
        "targetRefs": [{"kind": "Gateway", "name": "one"}, {"kind": "Gateway", "name": "two"}],
        "rules": [{**rule("r1"), "match": [{"key": "p", "type": "Any", "from": {"type": "Path"}}]}],
    },
)


def _attached(*reasons: Reason) -> RateLimitPolicyStatus:
    """Status of the policy whose targets have these reasons."""
    targets = tuple(
        holding(ConditionType.ATTACHED) if each is Reason.ATTACHED else failing(ConditionType.ATTACHED, each, "why")
        for each in reasons
    )
    whole = next((each for each in targets if not each.holds), targets[0])
    attachment = PolicyAttachment(whole, targets)
    return policy_status(
        TARGETED, _plan(TARGETED).policies["a/x"], attachment, Replicas({X: 3}, 3, {}), "tidegate", NOW
    )


def test_a_policy_with_targets_is_ready_only_when_envoy_asks_for_all_of_them() -> None:
    """What the replicas run is one thing, who asks them another."""
    attached, printed = _attached(Reason.ATTACHED, Reason.ATTACHED), _attached(Reason.ATTACHED, Reason.NO_INTEGRATION)

    assert _condition(attached, "Ready").status is ConditionStatus.TRUE
    assert _condition(printed, "Attached").reason == "NoIntegration"
    assert _condition(printed, "Programmed").status is ConditionStatus.TRUE
    assert _condition(printed, "Ready").reason == "NoIntegration"


def test_each_target_has_an_ancestor_with_conditions_of_its_own() -> None:
    """One that has an older policy, or is not there, does not accept this one; any other makes it accepted."""
    status = _attached(Reason.CONFLICTED, Reason.ATTACHED)
    accepted = [each.conditions[0] for each in status.ancestors]

    assert [each.ancestor_ref.name for each in status.ancestors] == ["one", "two"]
    assert [each.reason for each in accepted] == ["Conflicted", "Accepted"]
    assert _condition(status, "Accepted").status is ConditionStatus.TRUE
    assert _condition(status, "Attached").reason == "Conflicted"


def test_a_policy_that_no_target_accepts_is_not_accepted() -> None:
    """And so nothing is said of replicas."""
    status = _attached(Reason.CONFLICTED, Reason.TARGET_NOT_FOUND)

    assert _condition(status, "Accepted").reason == "Conflicted"
    assert [each.type for each in status.conditions] == ["Accepted", "ResolvedRefs", "Attached", "Ready"]


def test_a_profile_tells_who_uses_it() -> None:
    """Its replicas are not counted: it is ready when it may be used."""
    given = profile("a/p", {})
    planned = plan(world(profiles=of(given)), Live(), Contests())

    status = profile_status(given, planned.profiles["a/p"], 7, None, NOW)

    assert status.used_by == 7
    assert status.config_map is None
    assert [each.status for each in status.conditions] == [ConditionStatus.TRUE] * 3
    assert patience_s(status, status) == 0.0


def test_a_profile_tells_what_became_of_its_config_map() -> None:
    """An error only where there is one."""
    given = profile("a/p", {})
    planned = plan(world(profiles=of(given)), Live(), Contests())
    states = [CopyState("tidegate-profile-p", "1"), CopyState("tidegate-profile-p", "1", "403: no")]

    written, failed = (profile_status(given, planned.profiles["a/p"], 0, state, NOW).config_map for state in states)

    assert written == ProfileCopyStatus(name="tidegate-profile-p", version="1")
    assert failed == ProfileCopyStatus(name="tidegate-profile-p", version="1", last_error="403: no")


def test_the_body_of_a_status_leaves_out_what_says_nothing() -> None:
    """Server-side apply owns only what is written."""
    body = status_body(_status(3, 3))

    assert set(body) == {"observedGeneration", "conditions", "distribution", "effective"}
    assert "lastError" not in body["distribution"]


def test_a_number_of_replicas_alone_has_time() -> None:
    """A rollout of the service is not a write per pod and policy; a condition that turns is told at once."""
    assert patience_s(_status(1, 2), _status(1, 3)) == COUNT_WAIT_S
    assert patience_s(_status(3, 3), _status(4, 4)) == COUNT_WAIT_S
    assert patience_s(_status(3, 3), _status(2, 3)) == SETTLE_S
    assert patience_s(_status(2, 3), _status(3, 3)) == 0.0
    assert patience_s(RateLimitPolicyStatus(), _status(3, 3)) == 0.0


def test_an_object_is_written_three_times_at_once_and_then_once_a_second() -> None:
    """A policy that flaps costs one write a second."""
    pacer = Pacer(0.0)
    for _ in range(3):
        assert pacer.wait_s("a", 0.0) == 0.0
        pacer.wrote("a", 0.0)

    assert pacer.wait_s("a", 0.0) == pytest.approx(1.0)
    assert pacer.wait_s("b", 0.0) == 0.0
    assert pacer.wait_s("a", 1.0) == pytest.approx(0.0)


def test_all_objects_together_are_written_fifty_times_a_second() -> None:
    """The API server is not ours alone."""
    pacer = Pacer(0.0)
    for number in range(50):
        assert pacer.wait_s(f"p{number}", 0.0) == 0.0
        pacer.wrote(f"p{number}", 0.0)

    assert pacer.wait_s("other", 0.0) == pytest.approx(0.02)


def test_patience_counts_from_when_a_write_was_first_wanted() -> None:
    """It does not begin anew each time that one looks, and ends with the write."""
    pacer = Pacer(0.0)

    assert pacer.wait_s("a", 0.0, 10.0) == 10.0
    assert pacer.wait_s("a", 4.0, 10.0) == pytest.approx(6.0)
    assert pacer.wait_s("a", 4.0) == 0.0
    assert pacer.choose([], 2.0, 6) == ([], None)
    assert pacer.wait_s("a", 5.0, 10.0) == 10.0


def test_what_was_written_long_ago_is_forgotten() -> None:
    """Objects come and go for months; the pacer's memory is bounded."""
    pacer = Pacer(0.0)
    for number in range(10_002):
        pacer.wrote(f"p{number}", float(number))

    assert len(pacer._objects) < 100


def test_a_message_fits_its_field() -> None:
    """At the limit it is whole, past it it says that it is cut."""
    assert shortened("x" * 10, 10) == "x" * 10
    assert shortened("x" * 11, 10) == "x" * 9 + "…"


def _record(holder: str, renewed: str = "t0") -> Record:
    return Record(holder, renewed, 0, "1")


def test_a_lease_that_stands_still_is_taken_after_its_time() -> None:
    """Judged by the local clock: the times that are written in it elect nobody."""
    election = Election("me")

    assert election.step(None, 0.0) is Step.CREATE
    assert election.step(_record("you"), 0.0) is Step.WAIT
    assert election.step(_record("you", "t1"), 14.0) is Step.WAIT
    assert election.step(_record("you", "t1"), 28.9) is Step.WAIT
    assert election.step(_record("you", "t1"), 29.0) is Step.TAKE


def test_a_released_lease_is_taken_at_once() -> None:
    """Takeover after a graceful stop costs one look."""
    assert Election("me").step(_record(""), 0.0) is Step.TAKE


def test_a_holder_steps_down_before_another_may_take_over() -> None:
    """From the moment that its last good renewal was sent."""
    election = Election("me")
    election.renewed(5.0)

    assert election.step(_record("me"), 6.0) is Step.RENEW
    assert election.holds(14.9)
    assert not election.holds(15.0)
    election.renewed(16.0)
    assert election.step(_record("you"), 17.0) is Step.WAIT
    assert not election.holds(17.0)
    election.renewed(18.0)
    election.lost()
    assert not election.holds(18.0)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0.1, 4.0)), max_size=60))
def test_two_candidates_never_hold_at_once(turns: list[tuple[str, float]]) -> None:
    """Whoever looks whenever, writes of a record are compared and swapped, and nobody acts past its time."""
    candidates = {name: Election(name) for name in ("a", "b")}
    record, now_s, version = _record(""), 0.0, 1
    for name, pause_s in turns:
        now_s += pause_s
        step = candidates[name].step(record, now_s)
        if step in (Step.RENEW, Step.TAKE):
            version += 1
            record = Record(name, f"t{version}", 0, str(version))
            candidates[name].renewed(now_s)
        assert sum(each.holds(now_s) for each in candidates.values()) <= 1
