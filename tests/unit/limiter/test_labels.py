"""The `rule` label is bounded, whatever clients send."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from ratelimit_service.limiter.labels import Labels, shows_values
from ratelimit_service.policy.snapshot import Action, LabelMode, Rule
from support.limiters import LimiterHarness, descriptor, request
from support.snapshots import snapshot_of


def rule(**fields: Any) -> Rule:
    return structs.replace(Rule(domain="shop", name="user", action=Action.LIMIT), **fields)


def test_a_label_is_the_rules_name_unless_the_policy_asks_for_more() -> None:
    """Nothing of the request is in it."""
    assert Labels(10).label(rule(), descriptor("user=alice")) == "user"
    assert not shows_values(rule(labels=LabelMode.KEY))


def test_keys_and_values_are_shown_where_asked_for() -> None:
    """`Key`, `KeyValue`, and upstream's value_to_metric for one entry of several."""
    asked = descriptor("plan=gold", "user=alice")
    one = rule(value_labels=(False, True))

    assert Labels(10).label(rule(labels=LabelMode.KEY), asked) == "user[plan,user]"
    assert Labels(10).label(rule(labels=LabelMode.KEY_VALUE), asked) == "user[plan=gold,user=alice]"
    assert Labels(10).label(one, asked) == "user[user=alice]"
    assert shows_values(one)


def test_a_shared_bucket_shows_its_pattern() -> None:
    """The value that is counted, not the one that came."""
    shared = rule(labels=LabelMode.KEY_VALUE, shared=(b"files/*",))

    assert Labels(10).label(shared, descriptor("path=files/secret")) == "user[path=files/*]"


def test_values_beyond_the_rules_cap_share_a_label() -> None:
    """Those that were first keep theirs."""
    labels, capped = Labels(10), rule(labels=LabelMode.KEY_VALUE, max_series=2)
    seen = [labels.label(capped, descriptor(f"u={value}")) for value in "abca"]

    assert seen == ["user[u=a]", "user[u=b]", "user[_overflow]", "user[u=a]"]


def test_values_of_all_rules_together_are_bounded() -> None:
    """A thousand rules of a thousand values each remember no more than the table can show."""
    labels = Labels(3)
    for number in range(20):
        each = rule(name=f"rule-{number}", labels=LabelMode.KEY_VALUE)
        last = labels.label(each, descriptor(f"u={number}"))

    assert last == "rule-19[_overflow]"
    assert sum(map(len, labels._seen.values())) == 3


def test_long_and_foreign_values_are_cut_and_escaped() -> None:
    """64 characters; bytes that are no UTF-8 are escapes."""
    labels = Labels(10)

    assert labels.label(rule(labels=LabelMode.KEY_VALUE), descriptor("u=" + "x" * 2**20)) == f"user[u={'x' * 64}]"
    shown = rule(labels=LabelMode.KEY_VALUE, shared=(b"\xff",))
    assert labels.label(shown, descriptor("u=v")) == "user[u=\\xff]"


def test_a_targeted_rule_is_named_with_its_policy_once() -> None:
    """`<namespace>/<policy>/<rule>`, as in `current_limit.name` (DECISIONS 36)."""
    snapshot = snapshot_of(
        """
        apiVersion: tidegate.dev/v1alpha1
        kind: RateLimitPolicy
        metadata: {name: edge, namespace: shop}
        spec:
          targetRefs: [{kind: Gateway, name: edge}]
          rules:
          - name: flood
            match: [{key: client, type: Any, from: {type: RemoteAddress}}]
            limits: [{requests: 5, window: 1m}]
        """
    )
    harness = LimiterHarness(snapshot)
    verdict = harness.ask(
        request(descriptor("tidegate_policy=shop/edge", "masked_remote_address=192.0.2.1/32"), domain="tidegate.dev")
    )

    assert harness.counters("shop/edge/flood", "tidegate.dev")["ok"] == 1
    assert verdict.statuses[0].limit.name == "shop/edge/flood"


def test_a_rule_that_no_request_met_has_no_counters() -> None:
    """Idle rules and explanations need no series."""
    snapshot = snapshot_of("domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1}}]")
    harness = LimiterHarness(snapshot)
    harness.explain(request("a=1", domain="d"))

    assert harness.table.entries == []
