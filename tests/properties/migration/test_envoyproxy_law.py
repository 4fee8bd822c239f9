"""The migrated manifests decide like the YAML that they were made of, request by request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.migration import EnvoyproxyMigration, migrate_envoyproxy
from ratelimit_service.migration.envoyproxy import write_yaml
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.wire.rls.messages import Descriptor, Verdict
from support.limiters import LimiterHarness, request
from support.snapshots import snapshot_of

Yaml = dict[str, Any]
Step = tuple[int, tuple[Descriptor, ...], int]
"""Seconds since the step before, descriptors, hits."""

KEYS: Final = ("a", "b")
VALUES: Final = ("", "x", "xy", "on", "1e3", "*", "x*", "xy*")
NAMES: Final = ("", "n", "m")

limits = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "unit": st.sampled_from(("second", "MINUTE", "day")),
            "requests_per_unit": st.integers(0, 3),
            "name": st.sampled_from(NAMES),
        }
    ),
    st.just({"unlimited": True}),
)


def _descriptor(key: str, value: str, limit: Yaml | None, shadow: bool, shares: bool, below: list[Yaml]) -> Yaml:
    made: Yaml = {"key": key, "value": value, "shadow_mode": shadow, "descriptors": below}
    if limit is not None:
        made["rate_limit"] = limit
    if shares and "*" in value:
        made["share_threshold"] = True
    return made


def _level(below: st.SearchStrategy[list[Yaml]]) -> st.SearchStrategy[list[Yaml]]:
    each = st.builds(
        _descriptor, st.sampled_from(KEYS), st.sampled_from(VALUES), limits, st.booleans(), st.booleans(), below
    )
    return st.lists(each, max_size=4, unique_by=lambda made: (made["key"], made["value"]))


configs = _level(_level(_level(st.just([]))))
entries = st.tuples(st.sampled_from((b"a", b"b", b"c")), st.sampled_from((b"", b"x", b"xy", b"xyz", b"on", b"1e3")))
descriptors = st.builds(Descriptor, st.lists(entries, min_size=1, max_size=3).map(tuple))
steps = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 1, 60)), st.lists(descriptors, min_size=1, max_size=3).map(tuple), st.integers(0, 2)
    ),
    min_size=1,
    max_size=12,
)


def replaced(config: list[Yaml], names: list[str]) -> list[Yaml]:
    """The first descriptor with a limit lifts limits of some other names."""
    for each in config:
        limit = each.get("rate_limit")
        if limit is not None:
            limit["replaces"] = [{"name": name} for name in names if name != limit.get("name")]
            break
    return config


def text_of(config: list[Yaml]) -> str:
    return write_yaml([{"domain": "shop", "descriptors": config}])


def migrated(config: list[Yaml]) -> EnvoyproxyMigration:
    return migrate_envoyproxy([SourceFile("upstream.yaml", text_of(config).encode())])


def said(verdict: Verdict) -> Any:
    """What decides: codes, and what is left of the limits of a request that passes.

    (Of one that is denied only that shows: a limit of 0, now Deny, looks at what is left before the hits, not after.)
    """
    left = [status.remaining if status.limit is not None and not verdict.over else 0 for status in verdict.statuses]
    return verdict.over, [status.over for status in verdict.statuses], left


def decide_alike(config: list[Yaml], schedule: list[Step], change: Callable[[Yaml], None] = lambda _: None) -> bool:
    """Whether both say the same; `change` plants something in each rule."""
    result = migrated(config)
    assert result.is_complete, result.problems
    for manifest in result.manifests:
        for rule in manifest["spec"]["rules"]:
            change(rule)
    before = LimiterHarness(snapshot_of(text_of(config)))
    after = LimiterHarness(snapshot_of(write_yaml(result.manifests)) if result.manifests else snapshot_of(_NOTHING))
    for seconds, asked, hits in schedule:
        for each in (before, after):
            each.advance(seconds * 1_000_000)
        message = request(*asked, hits=hits)
        if said(before.ask(message)) != said(after.ask(message)):
            return False
    return True


_NOTHING: Final = "domain: shop\ndescriptors: []\n"


@given(configs, steps, st.lists(st.sampled_from(("n", "m")), max_size=2, unique=True))
@example(
    [{"key": "a", "value": "x"}, {"key": "a", "rate_limit": {"unit": "day", "requests_per_unit": 1}}],
    [(0, (Descriptor(((b"a", b"x"),)),), 1)] * 3,
    [],
)
def test_manifests_decide_like_the_yaml(config: list[Yaml], schedule: list[Step], lifts: list[str]) -> None:
    """Whatever is configured, asked, and when."""
    assert decide_alike(replaced(config, lifts), schedule)


def _without_ends(rule: Yaml) -> None:
    """Planted: where matching ended in a pass, there is a limit."""
    if rule.get("action") == "Allow":
        del rule["action"]
        rule["limits"] = [{"requests": 1, "window": "1h"}]


def _sliding(rule: Yaml) -> None:
    """Planted: the law of manifests that name none."""
    for limit in rule.get("limits", ()):
        del limit["algorithm"]


def _per_value(rule: Yaml) -> None:
    """Planted: values that share a counter have their own."""
    for match in rule["match"]:
        match.pop("bucket", None)


def _enforced(rule: Yaml) -> None:
    """Planted: shadows reject."""
    rule.pop("mode", None)


@pytest.mark.parametrize("plant", [_without_ends, _sliding, _per_value, _enforced])
def test_the_law_finds_what_is_planted(plant: Callable[[Yaml], None]) -> None:
    """Each change is seen by a short schedule."""
    limit = {"unit": "minute", "requests_per_unit": 1}
    config: list[Yaml] = [
        {"key": "a", "value": "x"},
        {"key": "a", "value": "y*", "share_threshold": True, "rate_limit": limit},
        {"key": "a", "rate_limit": limit},
        {"key": "b", "shadow_mode": True, "rate_limit": limit},
    ]
    texts = [("a", "x"), ("a", "x"), ("a", "y1"), ("a", "y2"), ("a", "z"), ("b", "1"), ("b", "1")]
    asked = [(Descriptor(((key.encode(), value.encode()),)),) for key, value in texts]
    schedule: list[Step] = [(0, each, 1) for each in asked]
    schedule += [(60, each, 1) for each in asked[2:5]]

    assert decide_alike(config, schedule)
    assert not decide_alike(config, schedule, plant)
