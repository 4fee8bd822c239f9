"""How `tidegate diff` shows a change, and when counts begin anew."""

from __future__ import annotations

import pytest

from ratelimit_operator.plan.differences import policy_change
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.model import RateLimitPolicy

LIMIT = {"requests": 5, "window": "10s"}


def _policy(limit: dict, match: dict | None = None, **spec: object) -> RateLimitPolicy:
    rule = {"name": "per-user", "match": [match or {"key": "user", "type": "Any"}], "limits": [limit]}
    found, problems = decode_manifest(
        {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "RateLimitPolicy",
            "metadata": {"name": "checkout", "namespace": "shop"},
            "spec": {"domain": "shop.checkout", "rules": [rule], **spec},
        }
    )
    assert isinstance(found, RateLimitPolicy), problems
    return found


@pytest.mark.parametrize(
    ("limit", "anew", "path"),
    [
        ({"requests": 6, "window": "10s"}, False, "limits[0].requests"),
        ({"requests": 5, "window": "20s"}, True, "limits[0].window"),
        ({"requests": 5, "window": "10s", "algorithm": "FixedWindow"}, True, "limits[0].algorithm"),
    ],
)
def test_counts_begin_anew_where_the_counter_is_another(limit: dict, anew: bool, path: str) -> None:
    """Other requests keep the count; another window or algorithm does not (DECISIONS 8)."""
    change = policy_change(_policy(LIMIT), _policy(limit))

    assert change is not None
    assert [(rule.name, rule.counts_anew) for rule in change.rules] == [("per-user", anew)]
    assert [field.path for field in change.rules[0].fields] == [path]


def test_another_key_is_another_counter() -> None:
    """And where Envoy takes the value is not."""
    source = {"key": "user", "type": "Any", "from": {"type": "Header", "name": "x-user"}}
    by_source = policy_change(_policy(LIMIT), _policy(LIMIT, source))
    by_key = policy_change(_policy(LIMIT), _policy(LIMIT, {"key": "tenant", "type": "Any"}))

    assert by_source is not None
    assert not by_source.rules[0].counts_anew
    assert by_key is not None
    assert by_key.rules[0].counts_anew


def test_what_stands_beside_the_rules_is_told_with_its_path() -> None:
    """Default against written."""
    change = policy_change(_policy(LIMIT), _policy(LIMIT, failure={"onStoreError": "Closed"}, mode="Shadow"))

    assert change is not None
    assert change.rules == ()
    told = {field.path: (field.before, field.after) for field in change.fields}
    assert told == {"mode": (None, "Shadow"), "failure.onStoreError": (None, "Closed")}


def test_a_default_that_is_written_out_changes_nothing() -> None:
    """SlidingWindow is what a window means when nothing is said."""
    assert policy_change(_policy(LIMIT), _policy(LIMIT, mode="Enforce")) is None
