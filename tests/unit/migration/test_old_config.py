"""Old configurations: what every field becomes, what is told of it, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.adapter import DefaultLimit, RateLimitConfig
from ratelimit_service.cache.compression import Method
from ratelimit_service.migration import InvalidOldConfig, RateLimitingConfigMigrator, ValidationResult
from ratelimit_service.policy.profile_model import WarmingMode

MIGRATOR = RateLimitingConfigMigrator()
WHOLE: dict[str, Any] = {
    "maxMemoryCacheSize": 5_000,
    "memoryConfig": {"maxMemoryMB": 64, "warningThresholdPercent": 60, "criticalThresholdPercent": 80},
    "defaultTTL": 120,
    "compressionConfig": {"enableCompression": True, "thresholdBytes": 256, "algorithm": "zstd", "level": 3},
    "warmingConfig": {"enableBackgroundWarming": True, "adaptiveWarming": False},
    "windowMs": 60_000,
    "maxRequests": 100,
    "algorithm": "fixed_window",
    "keyPrefix": "rl:",
    "redis": {"host": "cache.internal", "port": 6380, "password": "hidden", "db": 2},
}


def validated(old: dict[str, Any]) -> ValidationResult:
    return MIGRATOR.validate_migration(old, MIGRATOR.migrate_from_old_config(old))


def paths(reports: Any) -> list[str]:
    return [report.path for report in reports]


def test_every_field_is_somewhere() -> None:
    """With its meaning, or the reason why not."""
    new = MIGRATOR.migrate_from_old_config(WHOLE)

    assert (new.max_keys, new.max_memory_bytes, new.warning_percent, new.critical_percent) == (5_000, 64 << 20, 60, 80)
    assert new.default == DefaultLimit(limit=100, window_ms=60_000, algorithm="fixed_window")
    assert (new.namespace, new.warming) == ("rl:", WarmingMode.BACKGROUND)
    assert new.redis is not None
    assert (str(new.redis), new.redis.credentials.password.reveal()) == ("redis://cache.internal:6380/2", "hidden")
    assert new.cache is not None
    assert (new.cache.ttl_us, new.cache.threshold_bytes) == (120_000_000, 256)
    assert (new.cache.compression, new.cache.level) == (Method.ZSTD, 3)
    told = MIGRATOR.validate_migration(WHOLE, new)
    assert paths(told.changed) == ["defaultTTL", "keyPrefix"]
    assert not told.dropped
    assert not told.is_lossless
    assert "hidden" not in str(told)
    assert len(told.kept) == 17


def test_what_a_person_changed_afterwards_is_told() -> None:
    """With what it would have been."""
    new = msgspec.structs.replace(MIGRATOR.migrate_from_old_config(WHOLE), max_keys=7, cache=None)

    changed = {report.path: str(report) for report in MIGRATOR.validate_migration(WHOLE, new).changed}

    assert "max_keys=5000" in changed["maxMemoryCacheSize"]
    assert "cache.ttl_us=None" in changed["defaultTTL"]
    assert "cache.compression=zstd" in changed["compressionConfig.algorithm"]


@pytest.mark.parametrize(
    ("old", "default", "dropped"),
    [
        (
            {"algorithm": "token_bucket", "capacity": 30, "refillRate": 2.5, "maxRequests": 9, "windowMs": 5},
            DefaultLimit(limit=1, window_ms=400, algorithm="token_bucket", burst=30),
            ["windowMs", "maxRequests"],
        ),
        (
            {"algorithm": "token_bucket", "capacity": 30, "refillRate": 0, "maxRequests": 9, "windowMs": 5},
            DefaultLimit(limit=9, window_ms=5, algorithm="token_bucket", burst=30),
            ["refillRate"],
        ),
        ({"algorithm": "token_bucket", "refillRate": 1}, None, ["algorithm", "refillRate"]),
        (
            {"maxRequests": 3, "windowMs": 1_000, "capacity": 4},
            DefaultLimit(limit=3, window_ms=1_000, algorithm="sliding_window"),
            ["capacity"],
        ),
        ({"maxRequests": 3}, None, ["maxRequests"]),
    ],
)
def test_limits_are_what_their_algorithm_needs(old: dict[str, Any], default: Any, dropped: list[str]) -> None:
    """What is not used is told, each with its reason."""
    assert MIGRATOR.migrate_from_old_config(old).default == default
    assert paths(validated(old).dropped) == dropped


def test_half_milliseconds_and_half_percents_are_told() -> None:
    """They are rounded."""
    old = {"maxRequests": 3, "windowMs": 1.5, "memoryConfig": {"warningThresholdPercent": 60.5}}

    assert sorted(paths(validated(old).changed)) == ["memoryConfig.warningThresholdPercent", "windowMs"]


def test_compression_that_is_off_has_no_settings() -> None:
    """And warming that adapts is adaptive; an empty prefix is the default."""
    old = {
        "compressionConfig": {"enableCompression": False, "level": 4, "algorithm": "gzip"},
        "warmingConfig": {"adaptiveWarming": True},
        "keyPrefix": "",
    }
    new = MIGRATOR.migrate_from_old_config(old)

    assert new.cache is not None
    assert (new.cache.compression, new.warming) == (Method.STORED, WarmingMode.ADAPTIVE)
    assert paths(validated(old).dropped) == ["compressionConfig.algorithm", "compressionConfig.level", "keyPrefix"]


def test_fields_that_nobody_knows_are_reported() -> None:
    """At the top, below, and where nothing else is there; a near miss is named."""
    old = {"maxRequests": 1, "windowMs": 1_000, "maxRequest": 2, "memoryConfig": {"colour": "red"}}
    told = validated(old)

    assert paths(told.dropped) == ["maxRequest", "memoryConfig.colour"]
    assert "maxRequests" in told.dropped[0].reason
    assert paths(validated({"colour": "red"}).dropped) == ["colour"]
    assert paths(validated({"ttl": "5m"}).dropped) == ["ttl"]
    assert validated({}).is_lossless


def test_where_redis_is_may_be_said_in_two_ways() -> None:
    """Or not at all; an IPv6 host needs no brackets."""
    by_url = MIGRATOR.migrate_from_old_config({"redis": {"url": "redis://a:1/3", "db": 3}})
    told = validated({"redis": {"url": "redis://a:1/3", "db": 3, "password": "x"}})

    assert str(by_url.redis) == "redis://a:1/3"
    assert paths(told.dropped) == ["redis.db", "redis.password"]
    assert str(MIGRATOR.migrate_from_old_config({"redis": {"host": "::1"}}).redis) == "redis://[::1]:6379"
    assert paths(validated({"redis": {"port": 1}}).dropped) == ["redis.port"]
    assert paths(validated({"redis": {"host": "a", "tier": 1}}).dropped) == ["redis.tier"]
    assert MIGRATOR.migrate_from_old_config({"redis": {"port": 1}}).redis is None


@pytest.mark.parametrize(
    ("old", "named"),
    [
        ({"windowMs": -1, "memoryConfig": 5}, {"windowMs", "memoryConfig"}),
        ({"redis": {"host": "a b"}}, {"redis.host"}),
        ({"apiVersion": "v1", "windowMs": 1}, {"kind"}),
        ({"memoryConfig": {"warningThresholdPercent": 99.6, "criticalThresholdPercent": 100}}, {"warning_percent"}),
    ],
)
def test_what_is_wrong_is_told_all_at_once(old: dict[str, Any], named: set[str]) -> None:
    """By the old names, or the new one whose bound it is."""
    with pytest.raises(InvalidOldConfig) as refused:
        MIGRATOR.migrate_from_old_config(old)

    assert {finding.path for finding in refused.value.findings} == named


fields = st.sampled_from([name for name in WHOLE if name != "redis"])


@given(st.sets(fields), st.dictionaries(st.text(min_size=1, max_size=5, alphabet="pqz"), st.integers(), max_size=3))
def test_nothing_is_lost_in_silence(names: set[str], unknown: dict[str, int]) -> None:
    """Every field that was written is in exactly one of the three lists."""
    old = {**{name: WHOLE[name] for name in names}, **unknown}
    written = [
        f"{name}.{below}" if below else name
        for name, value in old.items()
        for below in (value if isinstance(value, dict) else [""])
    ]
    told = validated(old)

    assert sorted(paths((*told.kept, *told.changed, *told.dropped))) == sorted(written)
    assert isinstance(MIGRATOR.migrate_from_old_config(old), RateLimitConfig)
