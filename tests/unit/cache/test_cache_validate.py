"""Every problem of a configuration at once, each with its path; nothing raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.cache.validate import CacheConfigValidator, ConfigShape, Finding

VALIDATOR = CacheConfigValidator()

OLD: dict[str, Any] = {
    "maxMemoryCacheSize": 1000,
    "memoryConfig": {"maxMemoryMB": 200, "warningThresholdPercent": 70, "criticalThresholdPercent": 85},
    "defaultTTL": 300,
    "compressionConfig": {"enableCompression": True, "thresholdBytes": 512, "algorithm": "gzip", "level": 4},
    "warmingConfig": {"enableBackgroundWarming": True, "adaptiveWarming": False},
    "windowMs": 60000,
    "maxRequests": 100,
    "algorithm": "token_bucket",
    "keyPrefix": "rl:",
    "capacity": 10,
    "refillRate": 1.5,
    "redis": {"host": "redis", "port": 6379, "password": "x", "db": 0},
}


def manifest(**spec: object) -> dict[str, object]:
    """A CacheProfile."""
    head = {"apiVersion": "tidegate.dev/v1alpha1", "kind": "CacheProfile"}
    return {**head, "metadata": {"name": "p", "namespace": "n"}, "spec": spec}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (manifest(preset="Sessions"), ConfigShape.MANIFEST),
        ({"preset": "Sessions", "l1": {"maxMemory": "10Mi"}}, ConfigShape.SPEC),
        ({}, ConfigShape.SPEC),
        (OLD, ConfigShape.OLD),
    ],
)
def test_each_shape_is_recognised_and_may_be_valid(config: dict[str, object], shape: ConfigShape) -> None:
    """A manifest, a spec alone, nothing at all, and the old shape."""
    report = VALIDATOR.validate(config)

    assert (report.shape, report.is_valid, report.errors, report.warnings) == (shape, True, (), ())


def test_a_profiles_problems_are_told_together_with_paths_and_hints() -> None:
    """A typo, a bound and a rule between fields, in one report."""
    report = VALIDATOR.validate(
        {"l1": {"maxEntires": 5, "warningPercent": 90, "criticalPercent": 80}, "ttl": "soon", "preset": "Session"}
    )

    paths = {each.path for each in report.errors}
    assert paths == {"l1.maxEntires", "l1.warningPercent", "ttl", "preset"}
    assert any("maxEntries" in each.hint for each in report.errors)


def test_the_old_shapes_problems_are_told_together() -> None:
    """Types, bounds, unknown names on two levels, and rules between fields."""
    report = VALIDATOR.validate(
        {
            "maxMemoryCacheSize": "many",
            "memoryConfig": {"warningThresholdPercent": 90, "criticalThresholdPercent": 80, "maxMemory": 1},
            "compressionConfig": {"level": 12, "enableCompression": "yes", "algorithm": "lz4"},
            "warmingConfig": True,
            "keyPrefix": 5,
            "redis": {"url": "http://x", "host": "y", "port": 0},
            "windowMS": 1,
        }
    )

    assert [each.path for each in report.errors] == [
        "maxMemoryCacheSize",
        "memoryConfig.maxMemory",
        "compressionConfig.enableCompression",
        "compressionConfig.algorithm",
        "warmingConfig",
        "keyPrefix",
        "redis.url",
        "redis.port",
        "windowMS",
        "memoryConfig.warningThresholdPercent",
        "redis.url",
    ]
    assert str(next(each for each in report.errors if each.path == "windowMS")).endswith("(did you mean `windowMs`?)")


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({**OLD, "algorithm": "fixed_window"}, "capacity"),
        ({"maxRequests": 0}, "maxRequests"),
        ({"compressionConfig": {"enableCompression": False, "level": 4}}, "compressionConfig"),
        ({"ttl": "0s"}, "ttl"),
        ({"ttl": "1s", "negativeTTL": "2s"}, "negativeTTL"),
        ({"l2": {"enabled": True}}, "l2.enabled"),
        ({"preset": "Sessions", "l3": {"enabled": True, "path": "/x"}}, "l3"),
        ({"preset": "AuthTokens", "staleOnError": "1m"}, "staleOnError"),
    ],
)
def test_what_works_and_is_hardly_meant_is_a_warning(config: dict[str, object], path: str) -> None:
    """It may be used all the same."""
    report = VALIDATOR.validate(config)

    assert report.is_valid
    assert path in {each.path for each in report.warnings}


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ("text", ""),
        ({1: 2}, ""),
        ({"prest": "Sessions"}, "prest"),
        ({"kind": "RateLimitPolicy"}, "kind"),
        (manifest(ttl=object()), ""),
        ({"redis": {"url": 5}}, "redis.url"),
        ({"compressionConfig": {"level": 12}}, "compressionConfig.level"),
    ],
)
def test_what_is_no_configuration_is_told_and_not_raised(config: Any, path: str) -> None:
    """Other types, other kinds, values that are no data."""
    report = VALIDATOR.validate(config)

    assert not report.is_valid
    assert report.errors[0].path == path


def test_a_configuration_that_contains_itself_is_told() -> None:
    """Nothing that Python can build makes the validator raise."""
    config = manifest()
    config["spec"] = config

    assert not VALIDATOR.validate(config).is_valid


def test_a_finding_reads_as_one_line() -> None:
    """Path, message, hint; without what is not there."""
    assert [str(Finding("a", "b", "c")), str(Finding("", "b"))] == ["a: b (c)", "b"]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 200)
    | st.sampled_from(["", "gzip", "1s", "10Mi", "Sessions", "redis://x"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(sorted({*OLD, "l1", "ttl", "store"})), inner)
    ),
    max_leaves=6,
)


@given(plain)
def test_nothing_makes_it_raise(config: Any) -> None:
    """Whatever the mapping holds, there is a report."""
    report = VALIDATOR.validate(config)

    assert report.is_valid is (not report.errors)
