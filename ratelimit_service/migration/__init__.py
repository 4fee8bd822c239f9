"""Moving over: old names on the new engine, old configurations, and the YAML of envoyproxy/ratelimit.

from ratelimit_service.migration import RateLimitingConfigMigrator

migrator = RateLimitingConfigMigrator()
config = migrator.migrate_from_old_config(old)
print(migrator.validate_migration(old, config))
"""

from __future__ import annotations

from ratelimit_service.migration.envoyproxy import EnvoyproxyMigration, migrate_envoyproxy
from ratelimit_service.migration.old_config import (
    FieldReport,
    InvalidOldConfig,
    RateLimitingConfigMigrator,
    ValidationResult,
)
from ratelimit_service.migration.old_names import OptimizedRedisRateLimit, PerformanceOptimizedRateLimit

__all__ = [
    "EnvoyproxyMigration",
    "FieldReport",
    "InvalidOldConfig",
    "OptimizedRedisRateLimit",
    "PerformanceOptimizedRateLimit",
    "RateLimitingConfigMigrator",
    "ValidationResult",
    "migrate_envoyproxy",
]
