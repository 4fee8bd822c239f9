"""The page of all fields."""

from __future__ import annotations

from ratelimit_service.policy.model import RateLimitPolicySpec
from ratelimit_service.policy.profile_model import CacheProfileSpec
from ratelimit_service.policy.reference import render_policy_reference
from ratelimit_service.policy.schema import fields_of


def test_the_page_has_every_field_with_bounds_default_and_meaning() -> None:
    """Each kind of cell is seen once."""
    page = render_policy_reference()

    assert "| `window` | duration | 100ms to 8784h |  | Length of the window" in page
    assert "| `maxMemory` | quantity | 1 to 1Pi |  | Most memory" in page
    assert "| `horizon` | duration | 10ms to 10s | `200ms` | How far ahead a lease reaches |" in page
    assert "| `countDenied` | boolean |  | `false` |" in page
    assert "| `matchLabels` | map of strings | 1 to 8 items | required |" in page
    assert "| `endpoints` | list of string | 1 to 16 items |" in page
    assert "| `spec.rules[].limits[].burst` | burst goes with TokenBucket |" in page
    assert "`spec.overrides`: as `spec.defaults`." in page
    assert all(f"| `{name}` |" in page for spec in (RateLimitPolicySpec, CacheProfileSpec) for name in fields_of(spec))


def test_no_field_is_without_a_meaning() -> None:
    """Every row ends with a filled cell."""
    rows = [line for line in render_policy_reference().splitlines() if line.startswith("| `")]

    assert [row for row in rows if row.endswith("|  |")] == []
