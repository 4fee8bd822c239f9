"""`evaluate` says what would be decided, and changes nothing."""

from __future__ import annotations

import pytest

from ratelimit_service.limiter.settings import LimiterSettings
from support.limiters import LimiterHarness, descriptor, request
from support.snapshots import policy, snapshot_of

RULES = """\
- {name: user, match: [{key: user, type: Any}], limits: [{requests: 2, window: 1m, algorithm: FixedWindow}],
   rollout: {percent: 0, limits: [{requests: 9, calendar: {unit: Day, timeZone: Europe/Zurich}}]}}
- {name: gold, match: [{key: gold, type: Any}], limits: [{requests: 5, window: 1m}], replaces: [user], refunds: true}
- {name: banned, match: [{key: banned, type: Any}], action: Deny}
"""


@pytest.fixture(params=[False, True], ids=["at once", "later"])
def harness(request: pytest.FixtureRequest) -> LimiterHarness:
    return LimiterHarness(snapshot_of(policy(RULES)), deferred=request.param)


def test_limits_are_told_as_they_stand(harness: LimiterHarness) -> None:
    """Both sides of a rollout, with counts, roles and calendars."""
    for _ in range(3):
        harness.ask(request("user=x"))
    told = harness.explain(request("user=x"))
    (only,) = told.descriptors

    assert (told.known, told.code, told.problem, told.domain) == (True, "OVER_LIMIT", "", "shop")
    assert (only.rule, only.policy, only.code, only.hits, only.entries) == (
        "user",
        "shop/policy",
        "OVER_LIMIT",
        1,
        ("user=x",),
    )
    assert only.written.startswith("0.yaml:")
    assert [(limit.role, limit.used, limit.remaining, limit.over) for limit in only.limits] == [
        ("enforce", 2, 0, True),
        ("shadow", 2, 7, False),
    ]
    assert only.limits[1].calendar == "Day Europe/Zurich"
    assert only.key == "0178"


def test_explaining_counts_nothing(harness: LimiterHarness) -> None:
    """Neither hits nor metrics."""
    for _ in range(5):
        harness.explain(request("user=x", "none=x", descriptor("user=x", negative=True)))

    assert harness.usage() == []
    assert harness.table.entries == []
    assert harness.table.unmatched == harness.table.refunds_ignored == 0


def test_what_becomes_of_each_descriptor_is_told(harness: LimiterHarness) -> None:
    """Replaced, refunded, overridden, denied, without a rule; why not another is in words."""
    asked = request(
        "user=x", descriptor("gold=x", negative=True), descriptor("user=x", limit=(5, 2)), "banned=x", "nobody=x"
    )
    told = harness.explain(asked).descriptors

    assert [(each.rule, each.what) for each in told] == [
        ("user", "another descriptor's rule replaces its rule: passes"),
        ("gold", "negative hits that are taken back"),
        ("", "the limit that it carries is charged"),
        ("banned", "a rule says Deny"),
        ("", "no rule: passes"),
    ]
    assert [len(each.limits) for each in told] == [0, 0, 1, 0, 0]
    assert all(each.why for each in told)


def test_a_request_that_would_be_refused_says_so(harness: LimiterHarness) -> None:
    """In the words of the refusal; in compat mode, upstream's."""
    compat = LimiterHarness(snapshot_of(policy(RULES)), LimiterSettings(compat=True))

    assert harness.explain(request()).problem == "descriptors: must not be empty"
    assert harness.explain(request(descriptor("a=b", limit=(1, 0)))).problem.startswith("descriptors[0].limit.unit: 0")
    assert compat.explain(request()).problem == "rate limit descriptor list must not be empty"


def test_an_unknown_domain_is_told(harness: LimiterHarness) -> None:
    """It is OK and nothing is limited."""
    told = harness.explain(request("user=x", domain="nobody"))

    assert (told.known, told.code, told.descriptors) == (False, "OK", ())
