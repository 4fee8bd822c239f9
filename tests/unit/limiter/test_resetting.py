"""A reset begins anew whatever a request would be counted in."""

from __future__ import annotations

import pytest

from ratelimit_service.limiter.settings import LimiterSettings
from support.limiters import LimiterHarness, descriptor, request
from support.snapshots import policy, snapshot_of

RULES = """\
- {name: user, match: [{key: user, type: Any}],
   limits: [{requests: 2, window: 1m, algorithm: FixedWindow}, {requests: 3, window: 1h, algorithm: SlidingWindow}],
   rollout: {percent: 0, limits: [{requests: 9, calendar: {unit: Day, timeZone: Europe/Zurich}}]}}
- {name: gold, match: [{key: gold, type: Any}], limits: [{requests: 5, window: 1m}], replaces: [user], refunds: true}
- {name: banned, match: [{key: banned, type: Any}], action: Deny}
"""


@pytest.fixture(params=[False, True], ids=["at once", "later"])
def harness(request: pytest.FixtureRequest) -> LimiterHarness:
    return LimiterHarness(snapshot_of(policy(RULES)), deferred=request.param)


def test_every_limit_of_the_rule_begins_anew(harness: LimiterHarness) -> None:
    """Those of a rollout too; keys of others stay."""
    for name in ("x", "y"):
        harness.ask(request(f"user={name}"))
        harness.ask(request(f"user={name}"))
    (told,) = harness.reset(request("user=x")).counters

    assert (told.rule, told.key, told.counted, told.what, told.descriptor) == ("user", ("x",), True, "", ("user=x",))
    assert [usage.key for usage in harness.usage()] == [b"\x01y"] * 3
    assert not harness.ask(request("user=x")).over
    assert harness.ask(request("user=y")).over


def test_what_was_never_counted_is_told_so(harness: LimiterHarness) -> None:
    """A mistyped value would else look like a success."""
    (told,) = harness.reset(request("user=nobody")).counters

    assert (told.rule, told.counted) == ("user", False)


def test_each_descriptor_is_told(harness: LimiterHarness) -> None:
    """Replaced, given back, with a limit of its own, denied, without a rule."""
    asked = request(
        "user=x", descriptor("gold=x", negative=True), descriptor("user=x", limit=(5, 2)), "banned=x", "nobody=x"
    )
    told = harness.reset(asked).counters

    assert [(each.rule, bool(each.key), each.counted) for each in told] == [
        ("user", False, False),
        ("gold", True, False),
        ("", True, False),
        ("banned", False, False),
        ("", False, False),
    ]
    assert [bool(each.what) for each in told] == [True, False, False, True, True]


def test_what_cannot_be_counted_is_a_problem(harness: LimiterHarness) -> None:
    """In the words of a refused request; in compat mode, upstream's. An unknown domain is told by its name."""
    compat = LimiterHarness(snapshot_of(policy(RULES)), LimiterSettings(compat=True))

    assert harness.reset(request()).problem == "descriptors: must not be empty"
    assert compat.reset(request()).problem == "rate limit descriptor list must not be empty"
    assert harness.reset(request("user=x", domain="nobody")).problem == "no policy names domain 'nobody'"


def test_compat_counters_are_begun_anew() -> None:
    """By their own keys."""
    rules = "- {name: user, match: [{key: user, type: Any}], limits: [{requests: 1, window: 1m}]}"
    compat = LimiterHarness(snapshot_of(policy(rules)), LimiterSettings(compat=True))
    for _ in range(2):
        compat.ask(request("user=x"))
    (told,) = compat.reset(request("user=x")).counters

    assert told.counted
    assert not compat.ask(request("user=x")).over
