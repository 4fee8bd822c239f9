"""A configuration as the `CacheProfile` that says the same: for programs that read a file, and for the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ratelimit_service.cache.compression import Method
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.library.config import RateLimitConfig
from ratelimit_service.policy.model import API_VERSION
from ratelimit_service.policy.profile_model import StoreType
from ratelimit_service.policy.quantities import duration_text, quantity_text
from ratelimit_service.redis_server.address_model import Layout, RedisAddress

__all__ = ["profile_of", "program_of"]

SECRET_NAME: Final = "redis-login"  # noqa: S105 — where the login lies, not what it is
"""The Secret that a migrated profile takes its Redis login from."""

_TYPES: Final[Mapping[Layout, StoreType]] = {
    Layout.SINGLE: StoreType.REDIS,
    Layout.SENTINEL: StoreType.REDIS_SENTINEL,
    Layout.CLUSTER: StoreType.REDIS_CLUSTER,
}
_ALGORITHMS: Final[Mapping[Method, str]] = {Method.STORED: "None", Method.GZIP: "Gzip", Method.ZSTD: "Zstd"}


def profile_of(config: RateLimitConfig, name: str) -> dict[str, Any]:
    """The manifest. A login is named, never written: put it into the Secret `redis-login` (`username`, `password`)."""
    spec: dict[str, Any] = {"preset": "RateLimiting"}
    if config.redis is not None:
        spec["store"] = _store(config.redis)
    spec["l1"] = {
        "maxEntries": config.max_keys,
        "maxMemory": quantity_text(config.max_memory_bytes),
        "warningPercent": config.warning_percent,
        "criticalPercent": config.critical_percent,
    }
    if config.redis is not None:
        spec["l2"] = {"enabled": True}
    spec["warming"] = {"mode": config.warming.value}
    if config.cache is not None:
        spec |= _cache(config.cache)
    return {"apiVersion": API_VERSION, "kind": "CacheProfile", "metadata": {"name": name}, "spec": spec}


def _store(address: RedisAddress) -> dict[str, Any]:
    store: dict[str, Any] = {
        "type": _TYPES[address.layout].value,
        "endpoints": [str(endpoint) for endpoint in address.endpoints],
    }
    if address.master_name:
        store["masterName"] = address.master_name
    if address.db:
        store["database"] = address.db
    if address.credentials.user or address.credentials.password or address.credentials.password_file:
        store["auth"] = {"secretRef": {"name": SECRET_NAME}}
    if address.tls is not None:
        store["tls"] = {"mode": "Verify" if address.tls.verify else "SkipVerify"}
    return store


def _cache(cache: CacheSettings) -> dict[str, Any]:
    packed: dict[str, Any] = {"threshold": cache.threshold_bytes}
    if cache.compression is not None:
        packed["algorithm"] = _ALGORITHMS[cache.compression]
    if cache.level is not None:
        packed["level"] = cache.level
    return {"compression": packed, "ttl": duration_text(cache.ttl_us)}


def program_of(config: RateLimitConfig, profile_file: str) -> str:
    """The lines of Python that build the limiter from that profile, with what a profile does not say."""
    arguments = [f"namespace={config.namespace!r}"]
    checks = 'await limiter.check_rate_limit("user:42", 100, 60_000)'
    default = config.default
    if default is not None:
        burst = "" if default.burst is None else f", burst={default.burst}"
        arguments.append(
            f"default=DefaultLimit(limit={default.limit}, window_ms={default.window_ms}, "
            f"algorithm={default.algorithm!r}{burst})"
        )
        checks = 'await limiter.check_default("user:42")'
    return (
        "from ratelimit_service.adapter import DefaultLimit, RateLimitConfig, RateLimitingCacheAdapter\n\n"
        f"config = RateLimitConfig({', '.join(arguments)})\n"
        f"async with RateLimitingCacheAdapter.from_profile({profile_file!r}, config) as limiter:\n"
        f"    result = {checks}\n"
    )
