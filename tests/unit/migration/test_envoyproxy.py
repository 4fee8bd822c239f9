"""What is told of envoyproxy/ratelimit YAML that has no counterpart, with its line, and how manifests look."""

from __future__ import annotations

from textwrap import dedent

import pytest
import yaml

from ratelimit_service.migration import EnvoyproxyMigration, migrate_envoyproxy
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.problems import Severity
from support.snapshots import snapshot_of


def migrated(text: str, *, merge_domains: bool = False) -> EnvoyproxyMigration:
    return migrate_envoyproxy([SourceFile("config.yaml", dedent(text).encode())], merge_domains=merge_domains)


def told(result: EnvoyproxyMigration) -> list[tuple[str, int, str]]:
    return [(problem.path, problem.line, problem.severity.value) for problem in result.problems]


def test_a_file_becomes_a_policy_that_people_can_read() -> None:
    """Names from keys and values, one rule for each limit, one for each end."""
    result = migrated("""\
        domain: shop
        descriptors:
        - key: plan
          value: gold
          rate_limit: {unit: minute, requests_per_unit: 10}
          descriptors:
          - key: path
            value: /free
          - key: path
            value: "/a*"
            share_threshold: true
            shadow_mode: true
            rate_limit: {unit: hour, requests_per_unit: 5}
        - key: plan
          rate_limit: {unlimited: true}
        """)

    assert result.is_complete
    (policy,) = yaml.safe_load_all(result.to_yaml())
    assert policy == {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {
            "domain": "shop",
            "rules": [
                {
                    "name": "plan-gold",
                    "match": [{"key": "plan", "value": "gold"}],
                    "limits": [{"requests": 10, "window": "1m", "algorithm": "FixedWindow"}],
                },
                {
                    "name": "plan-gold-path-free",
                    "match": [{"key": "plan", "value": "gold"}, {"key": "path", "value": "/free"}],
                    "action": "Allow",
                },
                {
                    "name": "plan-gold-path-a",
                    "match": [
                        {"key": "plan", "value": "gold"},
                        {"key": "path", "type": "Prefix", "value": "/a", "bucket": "Shared"},
                    ],
                    "limits": [{"requests": 5, "window": "1h", "algorithm": "FixedWindow"}],
                    "mode": "Shadow",
                },
                {"name": "plan", "match": [{"key": "plan", "type": "Any"}], "action": "Allow"},
            ],
        },
    }


def test_what_has_no_counterpart_is_told_with_its_line() -> None:
    """Each as an error; what only shows otherwise as a warning."""
    result = migrated("""\
        domain: shop
        descriptors:
        - key: a
          value: "x*y"
          rate_limit: {unit: second, requests_per_unit: 1}
        - key: b
          quota_mode: true
          rate_limit: {unit: second, requests_per_unit: 1}
        - key: c
          rate_limit:
            unit: second
            requests_per_unit: 4000000000
        - key: d
          detailed_metric: true
          value_to_metric: true
          metadata: {a: 1}
          rate_limit:
            name: limit
            unit: second
            requests_per_unit: 0
            replaces:
            - name: nobody
        """)

    assert told(result) == [
        ("descriptors[0].value", 4, "error"),
        ("descriptors[1].quota_mode", 7, "error"),
        ("descriptors[2].rate_limit.requests_per_unit", 12, "error"),
        ("descriptors[3].detailed_metric", 14, "warning"),
        ("descriptors[3].value_to_metric", 15, "warning"),
        ("descriptors[3].metadata", 16, "warning"),
        ("descriptors[3].rate_limit.name", 18, "warning"),
        ("descriptors[3].rate_limit.requests_per_unit", 20, "warning"),
        ("descriptors[3].rate_limit.replaces[0]", 22, "warning"),
    ]
    assert not result.is_complete
    (manifest,) = result.manifests
    assert [(rule["name"], rule.get("action")) for rule in manifest["spec"]["rules"]] == [
        ("b", "Allow"),
        ("c", "Allow"),
        ("d", "Deny"),
    ]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f"domain: {'d' * 300}\ndescriptors: [{{key: a}}]", "domain"),
        ("domain: tidegate.dev\ndescriptors: [{key: a}]", "domain"),
        (f"domain: shop\ndescriptors: [{{key: {'k' * 200}, descriptors: [{{key: b}}]}}]", "descriptors[0].key"),
        (f"domain: shop\ndescriptors: [{{key: a, value: {'v' * 600}}}]", "descriptors[0].value"),
    ],
)
def test_what_is_too_long_is_told_once(text: str, path: str) -> None:
    """And not again for what is below it."""
    result = migrated(text)

    assert [problem.path for problem in result.problems] == [path]
    assert all(problem.severity is Severity.ERROR for problem in result.problems)


def test_chains_that_are_too_deep_are_told() -> None:
    """Eight entries are a rule, nine are none."""
    limit = "rate_limit: {unit: second, requests_per_unit: 1}"
    nested = f"{{key: k9, {limit}}}"
    for depth in range(8, 0, -1):
        nested = f"{{key: k{depth}, {limit}, descriptors: [{nested}]}}"
    result = migrated(f"domain: shop\ndescriptors: [{nested}]")

    assert [problem.path.count("descriptors") for problem in result.problems] == [9]
    assert len(result.manifests[0]["spec"]["rules"]) == 8


def test_a_domain_with_many_rules_gets_several_policies_in_order() -> None:
    """Which are one domain again when they are loaded; names that meet get numbers."""
    descriptors = "".join(
        f"- {{key: a, value: 'V{number}', rate_limit: {{unit: second, requests_per_unit: 1, name: n{number}}}}}\n"
        for number in range(100)
    )
    last = "- {key: a, value: v0, rate_limit: {unit: second, requests_per_unit: 1, replaces: [{name: n0}]}}\n"
    result = migrated(f"domain: Shop\ndescriptors:\n{descriptors}{last}")

    assert [manifest["metadata"]["name"] for manifest in result.manifests] == ["shop-001", "shop-002"]
    assert [len(manifest["spec"]["rules"]) for manifest in result.manifests] == [64, 37]
    errors = [problem for problem in result.problems if problem.severity is Severity.ERROR]
    assert ["another policy" in problem.message for problem in errors] == [True]
    assert len(snapshot_of(result.to_yaml()).domains[b"Shop"].rules) == 101


def test_a_rule_lifts_at_most_sixteen() -> None:
    """Those beyond are named."""
    named = "".join(
        f"- {{key: a, value: v{number}, rate_limit: {{unit: second, requests_per_unit: 1, name: all}}}}\n"
        for number in range(18)
    )
    result = migrated(
        f"domain: shop\ndescriptors:\n{named}- {{key: b, rate_limit: {{unlimited: true, replaces: [{{name: all}}]}}}}\n"
    )

    (error,) = (problem for problem in result.problems if problem.severity is Severity.ERROR)
    assert error.message.endswith("a-v16, a-v17 stay")
    assert len(result.manifests[0]["spec"]["rules"][-1]["replaces"]) == 16


def test_wrong_yaml_gives_no_manifests() -> None:
    """Only what is wrong with it; nothing at all is nothing at all."""
    wrong = migrated("domain: shop\ndescriptors: [{key: a, rate_limit: {unit: eon}}]")
    nothing = migrated("domain: shop\n")

    assert (wrong.manifests, wrong.is_complete, wrong.to_yaml()) == ((), False, "")
    assert (nothing.manifests, nothing.is_complete) == ((), True)


def test_documents_of_one_domain_are_told_apart_by_name() -> None:
    """Where their domains are merged."""
    text = "domain: shop\ndescriptors: [{key: a}]\n---\ndomain: shop\ndescriptors: [{key: b}]\n"

    assert not migrated(text).is_complete
    assert [each["metadata"]["name"] for each in migrated(text, merge_domains=True).manifests] == ["shop", "shop-2"]
