"""Response headers in both styles, and which policy chooses."""

from __future__ import annotations

import pytest

from ratelimit_service.limiter.settings import LimiterSettings
from support.limiters import LimiterHarness, descriptor, request
from support.snapshots import policy, snapshot_of

USER = "- {name: user, match: [{key: user, type: Any}], limits: [{requests: 5, window: 10s, algorithm: FixedWindow}]}\n"
PLAN = """\
- name: plan
  match: [{key: plan, type: Any}]
  limits:
  - {requests: 9, window: 1m, algorithm: FixedWindow}
  - {requests: 2, calendar: {unit: Day}}
  - {requests: 8, window: 500ms, algorithm: FixedWindow}
"""
DENY = "- {name: banned, match: [{key: banned, type: Any}], action: Deny}\n"


def styled(style: str, *rules: str, settings: LimiterSettings = LimiterSettings()) -> LimiterHarness:  # noqa: B008
    return LimiterHarness(snapshot_of(policy("".join(rules), spec=f"responseHeaders: {style}")), settings)


def test_draft_fields_name_limit_and_state() -> None:
    """One limit: policy and what is left of it."""
    headers = dict(styled("RateLimitFields", USER).ask(request("user=x")).headers)

    assert headers == {"RateLimit-Policy": '"user";q=5;w=10', "RateLimit": '"user";r=4;t=10'}


def test_draft_fields_number_several_limits_of_a_rule() -> None:
    """A calendar and a part of a second have no whole number of seconds; the state is that of the shown limit."""
    headers = dict(styled("RateLimitFields", PLAN).ask(request("plan=x")).headers)

    assert headers["RateLimit-Policy"] == '"plan-1";q=9;w=60, "plan-2";q=2, "plan-3";q=8'
    assert headers["RateLimit"] == '"plan-2";r=1;t=6400'


def test_draft_fields_tell_each_descriptor_and_a_rules_limits_once() -> None:
    """Two descriptors of one rule; hits that never fit have no time; overrides are numbered."""
    asked = request("user=x", descriptor("user=y", hits=6), descriptor("o=1", limit=(7, 3)))
    headers = dict(styled("RateLimitFields", USER).ask(asked).headers)

    assert headers["RateLimit-Policy"] == '"user";q=5;w=10, "limit-3";q=7;w=3600'
    assert headers["RateLimit"] == '"user";r=5;t=0, "user";r=0, "limit-3";r=7;t=0'


@pytest.mark.parametrize("style", ["RateLimitFields", "LegacyFields"])
def test_without_a_limit_there_are_no_fields(style: str) -> None:
    """A denied request, one without a rule."""
    harness = styled(style, DENY)

    assert harness.ask(request("banned=x")).headers == harness.ask(request("none=x")).headers == ()


def test_legacy_fields_are_plain_integers() -> None:
    """What never resets names no time: 0 would tell a client to try again at once."""
    harness = styled("LegacyFields", USER)

    assert harness.ask(request("user=x")).headers == (
        ("RateLimit-Limit", "5"),
        ("RateLimit-Remaining", "4"),
        ("RateLimit-Reset", "10"),
    )
    assert harness.ask(request("user=x", hits=6)).headers == (("RateLimit-Limit", "5"), ("RateLimit-Remaining", "0"))


def test_the_first_policy_that_asks_chooses() -> None:
    """A request that meets rules of several policies of a domain."""
    texts = [
        policy(rules, name=name, spec=f"responseHeaders: {style}")
        for name, style, rules in (("a", "Off", USER), ("b", "RateLimitFields", PLAN))
    ]
    harness = LimiterHarness(snapshot_of(*texts))

    assert harness.ask(request("user=x")).headers == ()
    assert dict(harness.ask(request("user=x", "plan=x")).headers).keys() == {"RateLimit-Policy", "RateLimit"}


def test_the_flag_adds_legacy_fields_where_no_policy_asks() -> None:
    """`--response-headers`."""
    always = LimiterSettings(response_headers=True)

    assert dict(styled("Off", USER, settings=always).ask(request("user=x")).headers)["RateLimit-Limit"] == "5"
    assert "RateLimit" in dict(styled("RateLimitFields", USER, settings=always).ask(request("user=x")).headers)


def test_names_are_quoted_as_structured_fields() -> None:
    """What no header may hold is replaced."""
    text = 'domain: shop\ndescriptors: [{key: a, rate_limit: {name: "q\\"\\\\é", unit: second, requests_per_unit: 5}}]'
    harness = LimiterHarness(snapshot_of(text))
    domain = harness.limiter._snapshot.domains[b"shop"]
    plan = harness.limiter._planner.plan(domain, request("a=1"))
    plan.headers = plan.headers.RATE_LIMIT_FIELDS
    verdict = harness.limiter._finish(plan, b"", harness.memory.charge(plan.charges, harness.clock.read()), ())

    assert isinstance(verdict, bytes)
    assert b'"q\\"\\\\?";q=5;w=1' in verdict
