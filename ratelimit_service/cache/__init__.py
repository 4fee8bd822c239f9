"""The value cache: memory, Redis and disk, coherent within a stated bound, with one load per key whatever happens.

    from ratelimit_service.cache import CacheService

    async with CacheService.from_profile("api-responses") as cache:
        page = await cache.get_or_load("page:42", load_page)

Redis and lmdb are imported only by caches whose settings have those levels.
"""

from __future__ import annotations

from ratelimit_service.cache.coherence import (
    CacheCoherencyManager,
    CoherencyStats,
    Invalidation,
    InvalidationMetadata,
)
from ratelimit_service.cache.compression import CompressionEngine, CompressionStats, Method
from ratelimit_service.cache.counting import CacheStats, Sample
from ratelimit_service.cache.decorator import cached
from ratelimit_service.cache.errors import (
    CacheError,
    CorruptPayload,
    InvalidKeyFile,
    LevelUnavailable,
    PayloadTooLarge,
    UnencodableValue,
)
from ratelimit_service.cache.flights import LoadTimedOut
from ratelimit_service.cache.health import CacheHealth, HealthStatus, LevelHealth, health_app, health_json
from ratelimit_service.cache.l1 import Pressure
from ratelimit_service.cache.loads import Loaded
from ratelimit_service.cache.locks import (
    CacheOperationLockManager,
    LockGrant,
    LockOrderViolated,
    LockStats,
    LockTimedOut,
)
from ratelimit_service.cache.profiles import (
    PROFILES,
    CacheSettings,
    DiskSettings,
    InvalidProfile,
    api_responses,
    auth_tokens,
    load_profile,
    rate_limiting,
    sessions,
    settings_of,
)
from ratelimit_service.cache.serialisers import Codec, JsonCodec, MsgpackCodec, RawCodec
from ratelimit_service.cache.service import CacheService
from ratelimit_service.cache.sync import SyncCacheService
from ratelimit_service.cache.validate import CacheConfigValidator, ConfigShape, Finding, ValidationReport
from ratelimit_service.cache.warming import CacheWarmer, WarmingReport

__all__ = [
    "PROFILES",
    "CacheCoherencyManager",
    "CacheConfigValidator",
    "CacheError",
    "CacheHealth",
    "CacheOperationLockManager",
    "CacheService",
    "CacheSettings",
    "CacheStats",
    "CacheWarmer",
    "Codec",
    "CoherencyStats",
    "CompressionEngine",
    "CompressionStats",
    "ConfigShape",
    "CorruptPayload",
    "DiskSettings",
    "Finding",
    "HealthStatus",
    "InvalidKeyFile",
    "InvalidProfile",
    "Invalidation",
    "InvalidationMetadata",
    "JsonCodec",
    "LevelHealth",
    "LevelUnavailable",
    "LoadTimedOut",
    "Loaded",
    "LockGrant",
    "LockOrderViolated",
    "LockStats",
    "LockTimedOut",
    "Method",
    "MsgpackCodec",
    "PayloadTooLarge",
    "Pressure",
    "RawCodec",
    "Sample",
    "SyncCacheService",
    "UnencodableValue",
    "ValidationReport",
    "WarmingReport",
    "api_responses",
    "auth_tokens",
    "cached",
    "health_app",
    "health_json",
    "load_profile",
    "rate_limiting",
    "sessions",
    "settings_of",
]
