"""A profile's file that changes while a cache runs, and the collector for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ratelimit_service.cache.following import ProfileFollower
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.prometheus import CacheCollector
from ratelimit_service.cache.service import CacheService
from support.caches import eventually

HEAD = "apiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\nmetadata: {name: mine, namespace: n}\nspec:\n"


def write(path: Path, spec: str) -> None:
    """Replace the file at once, as Kubernetes does."""
    new = path.with_suffix(".new")
    new.write_text(HEAD + spec)
    new.replace(path)


def test_what_can_change_does_and_the_rest_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The lifetime changes; the budget waits; a broken file changes nothing and is logged once."""
    path = tmp_path / "profile.yaml"
    write(path, "  {ttl: 10s}\n")
    cache = CacheService[Any].from_profile(path)
    follower = ProfileFollower(path, tmp_path, cache.adopt)
    seen = []
    with caplog.at_level(logging.WARNING):
        for spec in ("  {ttl: 10s}\n", "  {ttl: 20s, l1: {maxEntries: 5}}\n", "  {ttl: never}\n", "  {ttl: never}\n"):
            write(path, spec)
            follower.look()
            seen.append((cache.settings.ttl_us, len(caplog.records)))
        path.unlink()
        follower.look()

    assert seen == [(10_000_000, 0), (20_000_000, 1), (20_000_000, 2), (20_000_000, 2)]
    assert "max_entries" in caplog.messages[0]
    assert "not valid" in caplog.messages[1]


def test_a_running_cache_follows_its_file(tmp_path: Path) -> None:
    """Without being asked to."""
    path = tmp_path / "profile.yaml"
    write(path, "  {ttl: 10s}\n")

    async def main() -> int:
        async with CacheService[Any].from_profile(path) as cache:
            write(path, "  {ttl: 20s}\n")
            await eventually(lambda: cache.settings.ttl_us == 20_000_000, "the lifetime has changed")
            return cache.settings.ttl_us

    assert asyncio.run(main()) == 20_000_000


def test_prometheus_shows_two_caches_as_one_family_each() -> None:
    """Counters end in `_total` once, and profiles are told apart by a label."""
    registry = CollectorRegistry()
    first, second = CacheService[Any](CacheSettings(name="a")), CacheService[Any](CacheSettings(name="b"))
    registry.register(CacheCollector(first, second))
    asyncio.run(first.get("missing"))
    lines = generate_latest(registry).decode().splitlines()

    assert 'tidegate_cache_misses_total{cache="a"} 1.0' in lines
    assert 'tidegate_cache_misses_total{cache="b"} 0.0' in lines
    assert 'tidegate_cache_hits_total{cache="a",level="l2"} 0.0' in lines
    assert sum(line.startswith("# TYPE tidegate_cache_misses_total ") for line in lines) == 1
