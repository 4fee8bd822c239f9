"""The model of Envoy's local limits, whose law e2e holds to a real Envoy."""

from __future__ import annotations

from ratelimit_service.policy.model import (
    LimitSpec,
    LocalLimit,
    Match,
    MatchType,
    Metadata,
    RateLimitPolicy,
    RateLimitPolicySpec,
    RuleSpec,
    SourceType,
    ValueSource,
)
from ratelimit_service.policy.render.local import idle_settings, settings_of
from ratelimit_service.policy.render.local_buckets import LocalBuckets
from ratelimit_service.policy.render.requests import HttpRequest

HOUR_US = 3_600_000_000


def buckets(*rules: tuple[str, str | None, int]) -> LocalBuckets:
    """Rules by (header, value or None for any, requests)."""
    specs = tuple(
        RuleSpec(
            name=f"r{place}",
            match=(
                Match(
                    key=header,
                    type=MatchType.ANY if value is None else MatchType.EXACT,
                    value=value,
                    source=ValueSource(type=SourceType.HEADER, name=header),
                ),
            ),
            limits=(LimitSpec(requests=9, window_us=HOUR_US),),
            local=LocalLimit(requests=requests, window_us=HOUR_US),
        )
        for place, (header, value, requests) in enumerate(rules)
    )
    spec = RateLimitPolicySpec(domain="shop.api", rules=specs)
    return LocalBuckets(
        settings_of([(RateLimitPolicy(metadata=Metadata(name="p", namespace="shop"), spec=spec), specs)])
    )


def request(**headers: str) -> HttpRequest:
    return HttpRequest(b"GET", b"/", tuple((name.encode(), value.encode()) for name, value in headers.items()))


def refusals(asked: LocalBuckets, given: HttpRequest, count: int) -> list[bool]:
    return [asked.refuses(given) is not None for _ in range(count)]


def test_each_value_has_a_bucket_of_its_own() -> None:
    """And who sends no value has none."""
    asked = buckets(("x-user", None, 2))

    assert refusals(asked, request(**{"x-user": "ann"}), 3) == [False, False, True]
    assert refusals(asked, request(**{"x-user": "bob"}), 1) == [False]
    assert refusals(asked, request(), 3) == [False] * 3


def test_a_value_that_is_named_has_that_rules_bucket_alone() -> None:
    """In whichever order they are written."""
    asked = buckets(("x-plan", None, 3), ("x-plan", "gold", 1))

    assert refusals(asked, request(**{"x-plan": "gold"}), 2) == [False, True]
    assert refusals(asked, request(**{"x-plan": "free"}), 4) == [False, False, False, True]


def test_the_slowest_bucket_is_asked_first_and_the_others_keep_their_tokens() -> None:
    """What it refuses costs the faster ones nothing."""
    asked = buckets(("x-a", None, 2), ("x-b", None, 1))
    both = request(**{"x-a": "1", "x-b": "1"})

    assert refusals(asked, both, 3) == [False, True, True]
    assert asked.refuses(both) == ((b"x-b", b"1"),)
    assert refusals(asked, request(**{"x-a": "1"}), 2) == [False, True]


def test_without_settings_or_with_idle_ones_nothing_is_refused() -> None:
    """As on a route whose virtual host alone has a limit."""
    for settings in (None, idle_settings()):
        assert LocalBuckets(settings).refuses(request(**{"x-user": "ann"})) is None
