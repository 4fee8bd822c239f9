"""A migrated configuration as a profile: what is read from it again is what was migrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ratelimit_service.adapter import RateLimitingCacheAdapter
from ratelimit_service.migration import RateLimitingConfigMigrator
from ratelimit_service.migration.envoyproxy import write_yaml
from ratelimit_service.migration.profile_manifest import profile_of, program_of
from ratelimit_service.redis_server.address_model import Credentials

OLD: list[dict[str, Any]] = [
    {},
    {"maxMemoryCacheSize": 500, "memoryConfig": {"maxMemoryMB": 3}, "warmingConfig": {"adaptiveWarming": True}},
    {"compressionConfig": {"algorithm": "zstd", "level": 5, "thresholdBytes": 77}, "defaultTTL": 90},
    {"redis": {"host": "cache", "db": 3}, "compressionConfig": {"enableCompression": False}},
    {"redis": {"url": "redis+sentinel://a:1,b:2/main"}},
    {"redis": {"url": "rediss+cluster://a:1?skip_verify=true"}},
    {"redis": {"url": "rediss://a:1"}},
]


@pytest.mark.parametrize("old", OLD)
def test_what_is_read_again_is_what_was_migrated(old: dict[str, Any], tmp_path: Path) -> None:
    """Store, bounds, warming, compression and lifetime."""
    config = RateLimitingConfigMigrator().migrate_from_old_config(old)
    file = tmp_path / "profile.yaml"
    file.write_text(write_yaml([profile_of(config, "mine")]))
    read = RateLimitingCacheAdapter.from_profile(file)

    assert msgspec.structs.replace(read.config, cache=None) == msgspec.structs.replace(config, cache=None)
    if config.cache is not None:
        assert read.cache is not None
        wanted, found = config.cache, read.cache.settings
        assert (found.ttl_us, found.threshold_bytes) == (wanted.ttl_us, wanted.threshold_bytes)
        assert wanted.compression is None or found.compression is wanted.compression


def test_a_login_is_named_and_never_written(tmp_path: Path) -> None:
    """It is read from the Secret."""
    config = RateLimitingConfigMigrator().migrate_from_old_config({"redis": {"host": "a", "password": "hidden"}})
    text = write_yaml([profile_of(config, "mine")])
    file, secret = tmp_path / "profile.yaml", tmp_path / "redis-login"
    file.write_text(text)
    secret.mkdir()
    (secret / "password").write_text("hidden")

    assert "hidden" not in text
    read = RateLimitingCacheAdapter.from_profile(file, secrets=tmp_path).config.redis
    assert read is not None
    assert read.credentials.read() == ("", "hidden")
    assert isinstance(read.credentials, Credentials)


def test_the_program_is_python_and_has_the_rest() -> None:
    """Namespace and limit are not in a profile."""
    migrator = RateLimitingConfigMigrator()
    bucket = {"keyPrefix": "rl:", "algorithm": "token_bucket", "capacity": 5, "refillRate": 1}
    text = program_of(migrator.migrate_from_old_config(bucket), "p.yaml")

    compile(f"async def main():\n    {text.replace(chr(10), chr(10) + '    ')}\n", "program", "exec")
    assert "namespace='rl:'" in text
    assert "burst=5" in text
    assert "check_default" in text
    assert "check_rate_limit" in program_of(migrator.migrate_from_old_config({}), "p.yaml")
