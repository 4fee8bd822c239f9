"""The YAML of envoyproxy/ratelimit: every key, every error of its loader."""

from __future__ import annotations

import pytest

from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.upstream_model import UpstreamConfig, UpstreamRateLimit, UpstreamUnit

EVERY_KEY = b"""
domain: mongo_cps
descriptors:
- key: database
  value: users
  shadow_mode: yes
  quota_mode: true
  detailed_metric: on
  rate_limit: {unit: Second, requests_per_unit: 500, name: users, replaces: [{name: all}, {name: 42}]}
  metadata: {owner: {team: [a, 1, true]}}
  descriptors:
  - {key: path, value: /a*/b*, share_threshold: true, value_to_metric: true, rate_limit: {unlimited: true}}
  - {key: path}
- {key: 7, value: true, rate_limit: {unit: month}}
"""


def _decode(text: str | bytes, *, merge: bool = False) -> tuple[list[object], list[Problem]]:
    content = text if isinstance(text, bytes) else text.encode()
    objects, problems = decode([SourceFile("rl.yaml", content)], merge_domains=merge)
    return list(objects), problems


def _problem(text: str) -> tuple[str, str, int]:
    objects, (problem,) = _decode(text)
    assert objects == []
    assert problem.severity is Severity.ERROR
    return problem.path, problem.message, problem.line


def test_every_key_is_read() -> None:
    """Scalars are taken as upstream's YAML library takes them."""
    (config,), problems = _decode(EVERY_KEY)

    assert problems == []
    assert isinstance(config, UpstreamConfig)
    users, seven = config.descriptors
    wild, bare = users.descriptors
    assert (config.domain, str(config.origin)) == ("mongo_cps", "rl.yaml:2")
    assert users.rate_limit == UpstreamRateLimit(
        requests_per_unit=500, unit=UpstreamUnit.SECOND, name="users", replaces=("all", "42")
    )
    assert (users.shadow_mode, users.quota_mode, users.detailed_metric) == (True, True, True)
    assert users.metadata == {"owner": {"team": ["a", 1, True]}}
    assert (wild.value, wild.share_threshold, wild.value_to_metric) == ("/a*/b*", True, True)
    assert wild.rate_limit == UpstreamRateLimit(unlimited=True)
    assert (bare.key, bare.value, bare.rate_limit) == ("path", "", None)
    assert (seven.key, seven.value) == ("7", "true")
    assert seven.rate_limit == UpstreamRateLimit(unit=UpstreamUnit.MONTH)
    assert config.origin.line_of(seven.path) == 14


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [
        ("SECOND", 1),
        ("minute", 60),
        ("Hour", 3600),
        ("day", 86400),
        ("week", 604800),
        ("month", 2592000),
        ("year", 31536000),
    ],
)
def test_units_are_upstreams(unit: str, seconds: int) -> None:
    """Months have 30 days and years 365, in any case of letters."""
    assert UpstreamUnit[unit.upper()].window_us == seconds * 1_000_000


LIMIT = "rate_limit: {unit: second, requests_per_unit: 1}"


@pytest.mark.parametrize(
    ("text", "path", "message", "line"),
    [
        ("domain: ''\ndescriptors: []", "domain", "config file cannot have empty domain", 1),
        ("descriptors: []", "domain", "config file cannot have empty domain", 1),
        ("domain: a\ndescriptors:\n- value: x", "descriptors[0].key", "descriptor has empty key", 3),
        (
            "domain: a\ndescriptors:\n- {key: x, value: y}\n- {key: x_y}",
            "descriptors[1]",
            "duplicate descriptor composite key 'a.x_y', already given by descriptors[0]",
            4,
        ),
        (
            "domain: a\ndescriptors:\n- key: x\n  descriptors: [{key: y}, {key: y}]",
            "descriptors[0].descriptors[1]",
            "duplicate descriptor composite key 'a.x.y', already given by descriptors[0].descriptors[0]",
            4,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, rate_limit: {unit: minuet}}",
            "descriptors[0].rate_limit.unit",
            (
                "invalid rate limit unit 'minuet'; did you mean `minute`?; "
                "known: second, minute, hour, day, week, month, year"
            ),
            3,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, rate_limit: {unit: day, unlimited: true}}",
            "descriptors[0].rate_limit.unit",
            "should not specify rate limit unit when unlimited",
            3,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, rate_limit: {unit: day, replaces: [{name: ''}]}}",
            "descriptors[0].rate_limit.replaces[0].name",
            "should not have an empty replaces entry",
            3,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, rate_limit: {unit: day, name: n, replaces: [{name: n}]}}",
            "descriptors[0].rate_limit.replaces[0].name",
            "replaces should not contain name of same descriptor",
            3,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, value: y, share_threshold: true}",
            "descriptors[0].share_threshold",
            "share_threshold can only be used with wildcard values, but found key 'x_y'",
            3,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, ratelimit: {}}",
            "descriptors[0].ratelimit",
            "config error, unknown key 'ratelimit'; did you mean `rate_limit`?",
            3,
        ),
        (
            "domain: a\nzzzzz: 1",
            "zzzzz",
            "config error, unknown key 'zzzzz'; known here: domain, descriptors",
            2,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, metadata: {5: a}}",
            "descriptors[0].metadata.5",
            'a key is a string; write it in quotes: "5"',
            3,
        ),
        (
            "domain: a\ndescriptors: [x]",
            "descriptors[0]",
            "config error, yaml file contains list of type other than map: the string x",
            2,
        ),
        (
            "domain: a\ndescriptors: x",
            "descriptors",
            "error loading config file: a list is wanted, not the string x",
            2,
        ),
        ("domain: 1.5", "domain", "error checking config: a string is wanted, not the number 1.5", 1),
        (
            "domain: a\ndescriptors:\n- {key: x, shadow_mode: maybe}",
            "descriptors[0].shadow_mode",
            "error loading config file: true or false is wanted, not the string maybe",
            3,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, metadata: [a]}",
            "descriptors[0].metadata",
            "error loading config file: a mapping is wanted, not a list",
            3,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, rate_limit: 5}",
            "descriptors[0].rate_limit",
            "error loading config file: a mapping is wanted, not the integer 5",
            3,
        ),
        (
            "domain: a\ndescriptors:\n- {key: x, rate_limit: {unit: day, requests_per_unit: 4294967296}}",
            "descriptors[0].rate_limit.requests_per_unit",
            "error loading config file: requests_per_unit is 0 to 4294967295, not the integer 4294967296",
            3,
        ),
    ],
)
def test_every_error_of_upstreams_loader_is_ours(text: str, path: str, message: str, line: int) -> None:
    """With its words, and with our path and line."""
    told = [each for each in _decode(text)[1] if each.path == path]

    assert [(each.message, each.line) for each in told] == [(message, line)]


def test_all_errors_come_at_once() -> None:
    """Upstream stops at the first."""
    _, problems = _decode(f"domain: ''\ndescriptors:\n- {{value: a, {LIMIT}}}\n- {{key: x, rate_limit: {{unit: z}}}}")

    assert [each.path for each in problems] == ["domain", "descriptors[0].key", "descriptors[1].rate_limit.unit"]


def test_a_known_key_in_a_wrong_place_is_a_warning() -> None:
    """Upstream ignores it in silence, so the file still loads."""
    (config,), (problem,) = _decode("domain: a\ndescriptors:\n- {key: x, rate_limit: {unit: day, shadow_mode: true}}")

    assert isinstance(config, UpstreamConfig)
    assert problem.severity is Severity.WARNING
    assert problem.message == (
        "key 'shadow_mode' has no effect here; known here: unit, requests_per_unit, unlimited, name, replaces"
    )


def test_empty_values_are_not_written() -> None:
    """Null is what upstream's loader leaves at the zero value."""
    (config,), problems = _decode(
        "domain: a\ndescriptors:\n- {key: x, value: , rate_limit: , metadata: , shadow_mode: }"
    )

    assert problems == []
    assert isinstance(config, UpstreamConfig)
    assert config.descriptors[0].rate_limit is None


def test_one_domain_in_two_documents_is_an_error_naming_both() -> None:
    """Unless domains are merged."""
    text = "domain: a\n---\ndomain: a\n"

    _, (problem,) = _decode(text)
    merged, none = _decode(text, merge=True)

    assert str(problem) == "rl.yaml:3: domain: duplicate domain 'a' in config file; it is also at rl.yaml:1"
    assert (len(merged), none) == (2, [])
