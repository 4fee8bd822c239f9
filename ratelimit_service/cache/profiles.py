"""What a cache is built from: the four profiles that ship, and those that manifests describe.

    rate-limiting   L1 100,000 entries and 200 MiB, gzip 4 from 512 B, 60 s, Δ 1 s, background warming
    auth-tokens     1800 s, Δ 100 ms, compression, background warming; nothing stale, ever
    sessions        3600 s, 100 MiB, Δ 500 ms, adaptive warming; nothing stale, ever
    api-responses   300 s, compression from 1024 B, Δ 2 s; stale for 10 min while loading fails

A manifest is a `CacheProfile`; what it leaves out has its preset's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from ratelimit_service.cache.compression import GZIP_LEVEL_FOR_LIMITS, CompressionEngine, Method
from ratelimit_service.cache.errors import CacheError
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.profile_model import (
    DEFAULT_CRITICAL_PERCENT,
    DEFAULT_WARNING_PERCENT,
    CacheProfile,
    CacheProfileSpec,
    CoherenceMode,
    CompressionAlgorithm,
    Eviction,
    Preset,
    StoreType,
    WarmingMode,
)
from ratelimit_service.redis_server.address import InvalidStoreAddress
from ratelimit_service.redis_server.address_model import RedisAddress
from ratelimit_service.store_address import from_profile

__all__ = [
    "PROFILES",
    "CacheSettings",
    "DiskSettings",
    "InvalidProfile",
    "api_responses",
    "auth_tokens",
    "load_profile",
    "rate_limiting",
    "sessions",
    "settings_of",
]

_SECOND_US: Final = 1_000_000
_MIB: Final = 1024 * 1024
_DEFAULT_DISK_BYTES: Final = 1024 * _MIB
DEFAULT_SECRETS: Final = Path("/etc/tidegate/secrets")
"""Where the secrets that a profile names are mounted, one folder each."""


class InvalidProfile(CacheError):
    """A profile cannot be used.

    Attributes:
        problems: Everything that is wrong with it.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class DiskSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The level on disk.

    Attributes:
        path: Its folder.
        max_bytes: Most disk space.
        key_folder: Folder of the secret with the keys that values are encrypted with; None: in clear.
    """

    path: Path
    max_bytes: int = _DEFAULT_DISK_BYTES
    key_folder: Path | None = None


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a `CacheService` is built from. Times are microseconds.

    Attributes:
        name: For logs and health.
        max_entries, max_memory_bytes: The budget in memory.
        warning_percent, critical_percent: Of it; see `l1`.
        eviction: Which entry leaves memory.
        compression, level, threshold_bytes: How payloads for Redis and disk are packed; compression None: the best
            that is installed; level None: that method's default.
        dictionary: Train a dictionary for small values.
        mode: How changes by others are heard of.
        delta_us: Most time that a replaced value is still served.
        ttl_us: How long a value is fresh.
        stale_on_error_us: How long after that it is served while loading fails.
        negative_ttl_us: How long the absence of a value is remembered; 0: not at all.
        early_refresh_percent: Percent of `ttl_us` at whose end a value may be loaded anew before it expires.
        warming, top_keys: How a cold cache is filled, and with how many keys at the most.
        redis: Where the level in Redis is; None: there is none.
        disk: The level on disk; None: there is none.
    """

    name: str = "custom"
    max_entries: int = 100_000
    max_memory_bytes: int = 200 * _MIB
    warning_percent: int = DEFAULT_WARNING_PERCENT
    critical_percent: int = DEFAULT_CRITICAL_PERCENT
    eviction: Eviction = Eviction.S3FIFO
    compression: Method | None = None
    level: int | None = None
    threshold_bytes: int = 512
    dictionary: bool = False
    mode: CoherenceMode = CoherenceMode.TRACKING
    delta_us: int = _SECOND_US
    ttl_us: int = 300 * _SECOND_US
    stale_on_error_us: int = 0
    negative_ttl_us: int = 0
    early_refresh_percent: int = 0
    warming: WarmingMode = WarmingMode.NONE
    top_keys: int = 1_000
    redis: RedisAddress | None = None
    disk: DiskSettings | None = None

    def engine(self) -> CompressionEngine:
        """What packs this cache's payloads."""
        return CompressionEngine(self.compression, level=self.level, threshold_bytes=self.threshold_bytes)


def rate_limiting() -> CacheSettings:
    """For limits, quotas and their metadata."""
    return CacheSettings(
        name="rate-limiting",
        compression=Method.GZIP,
        level=GZIP_LEVEL_FOR_LIMITS,
        ttl_us=60 * _SECOND_US,
        warming=WarmingMode.BACKGROUND,
    )


def auth_tokens() -> CacheSettings:
    """For tokens and their claims: a revoked one is served for 100 ms at the most."""
    return CacheSettings(
        name="auth-tokens",
        delta_us=_SECOND_US // 10,
        ttl_us=1_800 * _SECOND_US,
        negative_ttl_us=_SECOND_US,
        early_refresh_percent=10,
        warming=WarmingMode.BACKGROUND,
    )


def sessions() -> CacheSettings:
    """For the sessions of users."""
    return CacheSettings(
        name="sessions",
        max_memory_bytes=100 * _MIB,
        delta_us=_SECOND_US // 2,
        ttl_us=3_600 * _SECOND_US,
        warming=WarmingMode.ADAPTIVE,
    )


def api_responses() -> CacheSettings:
    """For what upstream services answer."""
    return CacheSettings(
        name="api-responses",
        threshold_bytes=1_024,
        delta_us=2 * _SECOND_US,
        ttl_us=300 * _SECOND_US,
        stale_on_error_us=600 * _SECOND_US,
        negative_ttl_us=10 * _SECOND_US,
        early_refresh_percent=10,
    )


PROFILES: Final[Mapping[str, CacheSettings]] = {
    settings.name: settings for settings in (rate_limiting(), auth_tokens(), sessions(), api_responses())
}
"""The profiles that ship, by name."""

_OF_PRESET: Final[Mapping[Preset, str]] = {
    Preset.RATE_LIMITING: "rate-limiting",
    Preset.AUTH_TOKENS: "auth-tokens",
    Preset.SESSIONS: "sessions",
    Preset.API_RESPONSES: "api-responses",
}

_METHODS: Final[Mapping[CompressionAlgorithm, Method]] = {
    CompressionAlgorithm.NONE: Method.STORED,
    CompressionAlgorithm.GZIP: Method.GZIP,
    CompressionAlgorithm.ZSTD: Method.ZSTD,
}


def load_profile(profile: str | Path, *, secrets: Path = DEFAULT_SECRETS) -> CacheSettings:
    """The settings of a profile that ships, by its name, or of a file with one `CacheProfile`.

    Raises:
        InvalidProfile: There is no such name, or the file is not one valid profile; with every problem.
        OSError: The file cannot be read.
    """
    if isinstance(profile, str) and profile in PROFILES:
        return PROFILES[profile]
    path = Path(profile)
    if not path.exists():
        known = ", ".join(PROFILES)
        raise InvalidProfile(
            (Problem(str(profile), "", f"neither a file nor a profile that ships; those are {known}"),)
        )
    objects, problems = decode([SourceFile(str(path), path.read_bytes())])
    errors = tuple(each for each in problems if each.severity is Severity.ERROR)
    profiles = [each for each in objects if isinstance(each, CacheProfile)]
    if not errors and len(profiles) != 1:
        errors = (Problem(str(path), "", f"one CacheProfile is wanted, not {len(profiles)}"),)
    if errors:
        raise InvalidProfile(errors)
    return settings_of(profiles[0].spec, name=profiles[0].metadata.name, secrets=secrets)


def settings_of(spec: CacheProfileSpec, *, name: str = "custom", secrets: Path = DEFAULT_SECRETS) -> CacheSettings:
    """What a profile means.

    Args:
        spec: As it was decoded, so valid.
        name: For logs and health.
        secrets: Folder with one folder per secret.
    """
    base = PROFILES[_OF_PRESET[spec.preset]]
    written: dict[str, object] = {
        "name": name,
        "ttl_us": spec.ttl_us,
        "stale_on_error_us": spec.stale_on_error_us,
        "negative_ttl_us": spec.negative_ttl_us,
        "early_refresh_percent": spec.early_refresh,
    }
    if spec.l1 is not None:
        written |= {
            "max_entries": spec.l1.max_entries,
            "max_memory_bytes": spec.l1.max_memory_bytes,
            "warning_percent": spec.l1.warning_percent,
            "critical_percent": spec.l1.critical_percent,
            "eviction": spec.l1.eviction,
        }
    if spec.compression is not None:
        written |= _compression(spec, base)
    if spec.coherence is not None:
        written |= {"mode": spec.coherence.mode, "delta_us": spec.coherence.max_staleness_us}
    if spec.warming is not None:
        written |= {"warming": spec.warming.mode, "top_keys": spec.warming.top_keys}
    if spec.l2 is not None and spec.l2.enabled and spec.store.type is not StoreType.MEMORY:
        try:
            written["redis"] = from_profile(spec.store, secrets)
        except InvalidStoreAddress as wrong:
            raise InvalidProfile(
                tuple(Problem(f"CacheProfile {name}", "spec.store", text) for text in wrong.problems)
            ) from None
    if spec.l3 is not None and spec.l3.enabled:
        key = spec.l3.encryption_secret_ref
        written["disk"] = DiskSettings(
            path=Path(spec.l3.path or f"/var/cache/tidegate/{name}"),
            max_bytes=spec.l3.max_size_bytes or _DEFAULT_DISK_BYTES,
            key_folder=None if key is None else secrets / key.name,
        )
    return msgspec.structs.replace(base, **{field: value for field, value in written.items() if value is not None})


def _compression(spec: CacheProfileSpec, base: CacheSettings) -> dict[str, object]:
    packed = spec.compression
    assert packed is not None
    method = None if packed.algorithm is None else _METHODS[packed.algorithm]
    return {
        "compression": method,
        # A preset's level belongs to the preset's method.
        "level": packed.level if packed.level is not None or method in {None, base.compression} else _level(method),
        "threshold_bytes": packed.threshold,
        "dictionary": packed.dictionary,
    }


def _level(method: Method | None) -> int:
    return {Method.GZIP: 6, Method.ZSTD: 3}.get(method or Method.STORED, 1)
