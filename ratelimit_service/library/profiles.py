"""What a profile says of a limiter."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from ratelimit_service.cache.profiles import PROFILES, InvalidProfile, load_profile
from ratelimit_service.library.config import RateLimitConfig
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.profile_model import CacheProfile, Durability, LeaseMode, StoreType
from ratelimit_service.redis_server.address import InvalidStoreAddress
from ratelimit_service.store_address import from_profile

__all__ = ["config_of"]

_US_PER_MS: Final = 1_000


def config_of(profile: str | Path, base: RateLimitConfig, secrets: Path) -> RateLimitConfig:
    """A configuration with what a profile says in the place of what `base` does.

    Raises:
        InvalidProfile: There is none, or it is not valid; with every problem.
    """
    settings = load_profile(profile, secrets=secrets)
    config = msgspec.structs.replace(
        base,
        max_keys=settings.max_entries,
        max_memory_bytes=settings.max_memory_bytes,
        warning_percent=settings.warning_percent,
        critical_percent=settings.critical_percent,
        warming=settings.warming,
        top_keys=settings.top_keys,
    )
    if isinstance(profile, str) and profile in PROFILES:
        return config
    path = Path(profile)
    objects, _ = decode([SourceFile(str(path), path.read_bytes())])
    (manifest,) = (each for each in objects if isinstance(each, CacheProfile))
    return _with_store(config, manifest, secrets)


def _with_store(config: RateLimitConfig, manifest: CacheProfile, secrets: Path) -> RateLimitConfig:
    spec, leases = manifest.spec, manifest.spec.leases
    config = msgspec.structs.replace(
        config,
        exact=leases.mode is LeaseMode.EXACT,
        horizon_ms=leases.horizon_us // _US_PER_MS,
        slots=leases.slots or config.slots,
        standing_percent=leases.standing_share,
        wait_replicas=1 if spec.store.durability is Durability.WAIT else config.wait_replicas,
        new_master=spec.store.new_master or config.new_master,
    )
    if spec.store.type is StoreType.MEMORY:
        return msgspec.structs.replace(config, redis=None)
    try:
        return msgspec.structs.replace(config, redis=from_profile(spec.store, secrets))
    except InvalidStoreAddress as wrong:
        name = manifest.metadata.name
        raise InvalidProfile(
            tuple(Problem(f"CacheProfile {name}", "spec.store", text) for text in wrong.problems)
        ) from None
