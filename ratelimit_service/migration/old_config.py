"""The configuration of the library that came before, as `RateLimitConfig`.

Field by field: what an old field becomes, whether it means the same, and if not, why. `migrate_from_old_config` applies
that, and `validate_migration` holds a new configuration to it, so what a person changed by hand shows too.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ratelimit_service.cache.compression import Method
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.validate import CacheConfigValidator, ConfigShape, Finding
from ratelimit_service.errors import TidegateError
from ratelimit_service.library.config import DefaultLimit, RateLimitConfig
from ratelimit_service.library.results import InvalidRateLimit
from ratelimit_service.library.windows import refill_of
from ratelimit_service.policy.profile_model import WarmingMode
from ratelimit_service.redis_server.address import parse_endpoint, parse_store_url
from ratelimit_service.redis_server.address_model import Credentials, Layout, RedisAddress, Secret

__all__ = ["FieldReport", "InvalidOldConfig", "RateLimitingConfigMigrator", "ValidationResult"]

_MIB: Final = 1024 * 1024
_SECOND_US: Final = 1_000_000
_REDIS_PORT: Final = 6_379
_UNKNOWN: Final = "unknown field"
"""How the validator's finding of a field that nobody knows begins."""


class InvalidOldConfig(TidegateError):
    """An old configuration that cannot be moved over.

    Attributes:
        findings: Everything that is wrong with it, each with its path.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = tuple(findings)


class FieldReport(msgspec.Struct, frozen=True):
    """What became of one old field.

    Attributes:
        path: As it is written: `memoryConfig.maxMemoryMB`.
        became: Where it is now: `max_memory_bytes=209715200`; empty: nowhere.
        reason: Why it is so.
    """

    path: str
    became: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} → {self.became}: {self.reason}" if self.became else f"{self.path}: {self.reason}"


class ValidationResult(msgspec.Struct, frozen=True):
    """What became of every old field.

    Attributes:
        kept: Means the same.
        changed: Is there and means something else, or has another value than it had.
        dropped: Is not there any more, fields that nobody knows among them.
    """

    kept: tuple[FieldReport, ...] = ()
    changed: tuple[FieldReport, ...] = ()
    dropped: tuple[FieldReport, ...] = ()

    @property
    def is_lossless(self) -> bool:
        """Whether everything is kept."""
        return not self.changed and not self.dropped


class _Moved(msgspec.Struct, frozen=True):
    """One old field: what it sets, by attribute (`cache.ttl_us`), and why that is not the same; empty: it is."""

    path: str
    sets: dict[str, Any]
    reason: str = ""


class RateLimitingConfigMigrator:
    """Moves old configurations over. Has no state."""

    def migrate_from_old_config(self, old: Mapping[str, Any]) -> RateLimitConfig:
        """The new configuration that counts as the old one did.

        Fields that nobody knows are passed over here, and told by `validate_migration`.

        Raises:
            InvalidOldConfig: With everything that is wrong.
        """
        sets: dict[str, Any] = {}
        for moved in self._moved(old):
            sets |= moved.sets
        own = {name: value for name, value in sets.items() if "." not in name}
        cache = {name.partition(".")[2]: value for name, value in sets.items() if name.startswith("cache.")}
        try:
            if cache:
                own["cache"] = CacheSettings(name="migrated", **cache)
            return RateLimitConfig(**own)
        except InvalidRateLimit as wrong:
            findings = [Finding(path, problem) for path, problem in wrong.problems.items()]
            raise InvalidOldConfig(findings) from None

    def validate_migration(self, old: Mapping[str, Any], new: RateLimitConfig) -> ValidationResult:
        """Say of every old field what it is in `new`, whoever wrote that.

        Raises:
            InvalidOldConfig: The old configuration is not valid.
        """
        kept, changed, dropped = [], [], []
        for moved in self._moved(old):
            now = {name: _attribute(new, name) for name in moved.sets}
            became = ", ".join(f"{name}={_text(value)}" for name, value in now.items())
            others = [name for name, value in moved.sets.items() if now[name] != value]
            if not moved.sets:
                dropped.append(FieldReport(moved.path, "", moved.reason))
            elif others:
                wanted = ", ".join(f"{name}={_text(moved.sets[name])}" for name in others)
                changed.append(FieldReport(moved.path, became, f"it would be {wanted}"))
            elif moved.reason:
                changed.append(FieldReport(moved.path, became, moved.reason))
            else:
                kept.append(FieldReport(moved.path, became, "means the same"))
        return ValidationResult(tuple(kept), tuple(changed), tuple(dropped))

    def _moved(self, old: Mapping[str, Any]) -> list[_Moved]:
        report = CacheConfigValidator().validate(old)
        if report.shape is ConfigShape.MANIFEST:
            raise InvalidOldConfig([Finding("kind", "this is a manifest already")])
        unknown = [each for each in report.errors if each.message.startswith(_UNKNOWN)]
        wrong = [each for each in report.errors if not each.message.startswith(_UNKNOWN)]
        is_old = report.shape is ConfigShape.OLD
        if report.shape is ConfigShape.SPEC:
            # Of a profile, or empty: nothing in it is of the old shape.
            unknown = [Finding(str(name), f"{_UNKNOWN} `{name}`") for name in old]
            wrong = []
        if wrong:
            raise InvalidOldConfig(wrong)
        moved = list(_fields(old)) if is_old else []
        return [*moved, *(_Moved(each.path, {}, _why_unknown(each)) for each in unknown)]


def _why_unknown(finding: Finding) -> str:
    tip = f" ({finding.hint})" if finding.hint else ""
    return f"the old library has no such field{tip}; nothing was made of it"


def _attribute(config: RateLimitConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = None if value is None else getattr(value, part)
    return value


def _text(value: object) -> str:
    if isinstance(value, DefaultLimit):
        burst = "" if value.burst is None else f", burst {value.burst}"
        return f"{value.limit} per {value.window_ms} ms ({value.algorithm}{burst})"
    if isinstance(value, enum.Enum):
        return str(value.value) if isinstance(value.value, str) else value.name.lower()
    return str(value)


def _fields(old: Mapping[str, Any]) -> Iterator[_Moved]:
    """Every known field of a valid old configuration."""
    if "maxMemoryCacheSize" in old:
        entries = int(old["maxMemoryCacheSize"])
        yield _Moved("maxMemoryCacheSize", {"max_keys": entries, "cache.max_entries": entries})
    yield from _memory(old.get("memoryConfig", {}))
    if "defaultTTL" in old:
        reason = "counters live as long as their limit needs; values of the cache live for this time"
        yield _Moved("defaultTTL", {"cache.ttl_us": round(old["defaultTTL"] * _SECOND_US)}, reason)
    yield from _compression(old.get("compressionConfig", {}))
    yield from _warming(old.get("warmingConfig", {}))
    yield from _limit(old)
    if "keyPrefix" in old:
        prefix = old["keyPrefix"]
        if prefix:
            reason = "keys in Redis have another form, so counts begin anew"
            yield _Moved("keyPrefix", {"namespace": prefix}, reason)
        else:
            yield _Moved("keyPrefix", {}, "an empty prefix is the default namespace")
    if "redis" in old:
        yield from _redis(old["redis"])


def _memory(memory: Mapping[str, Any]) -> Iterator[_Moved]:
    if "maxMemoryMB" in memory:
        budget = round(memory["maxMemoryMB"] * _MIB)
        yield _Moved("memoryConfig.maxMemoryMB", {"max_memory_bytes": budget, "cache.max_memory_bytes": budget})
    for name, becomes in (
        ("warningThresholdPercent", "warning_percent"),
        ("criticalThresholdPercent", "critical_percent"),
    ):
        if name in memory:
            percent = round(memory[name])
            reason = "" if percent == memory[name] else "whole percents only"
            yield _Moved(f"memoryConfig.{name}", {becomes: percent, f"cache.{becomes}": percent}, reason)


def _compression(packed: Mapping[str, Any]) -> Iterator[_Moved]:
    is_on = packed.get("enableCompression", True)
    method = {"gzip": Method.GZIP, "zstd": Method.ZSTD, "none": Method.STORED}[packed.get("algorithm", "gzip")]
    if "enableCompression" in packed:
        sets = {"cache.compression": method if is_on else Method.STORED}
        yield _Moved("compressionConfig.enableCompression", sets)
    for name, becomes in (("algorithm", "compression"), ("level", "level"), ("thresholdBytes", "threshold_bytes")):
        if name not in packed:
            continue
        if not is_on:
            yield _Moved(f"compressionConfig.{name}", {}, "compression is off")
            continue
        value = method if name == "algorithm" else round(packed[name])
        yield _Moved(f"compressionConfig.{name}", {f"cache.{becomes}": value})


def _warming(warming: Mapping[str, Any]) -> Iterator[_Moved]:
    adaptive = warming.get("adaptiveWarming", False)
    background = warming.get("enableBackgroundWarming", False)
    mode = WarmingMode.ADAPTIVE if adaptive else WarmingMode.BACKGROUND if background else WarmingMode.NONE
    for name in ("enableBackgroundWarming", "adaptiveWarming"):
        if name in warming:
            yield _Moved(f"warmingConfig.{name}", {"warming": mode, "cache.warming": mode})


def _limit(old: Mapping[str, Any]) -> Iterator[_Moved]:
    algorithm = old.get("algorithm", "sliding_window")
    is_refilled = algorithm == "token_bucket" and old.get("refillRate", 0) > 0
    default = _default(old, algorithm, is_refilled=is_refilled)
    sets = {} if default is None else {"default": default}
    for name in ("windowMs", "maxRequests", "algorithm", "capacity", "refillRate"):
        if name not in old:
            continue
        is_rate = name in {"windowMs", "maxRequests"}
        if default is None:
            yield _Moved(name, {}, "a limit needs maxRequests and windowMs, a bucket capacity and refillRate too")
        elif is_rate and is_refilled:
            yield _Moved(name, {}, "a bucket is refilled by refillRate")
        elif name in {"capacity", "refillRate"} and algorithm != "token_bucket":
            yield _Moved(name, {}, f"is used by token_bucket only, not by {algorithm}")
        elif name == "refillRate" and not is_refilled:
            yield _Moved(name, {}, "a bucket that is not refilled is no limit; maxRequests per windowMs is taken")
        elif name == "windowMs" and default.window_ms != old[name]:
            yield _Moved(name, sets, "whole milliseconds only")
        else:
            yield _Moved(name, sets)


def _default(old: Mapping[str, Any], algorithm: str, *, is_refilled: bool) -> DefaultLimit | None:
    if is_refilled:
        limit, window_ms = refill_of(old["refillRate"])
        capacity = old.get("capacity", old.get("maxRequests"))
        if capacity is None or capacity < 1:
            return None
        return DefaultLimit(limit=limit, window_ms=window_ms, algorithm=algorithm, burst=round(capacity))
    if "maxRequests" not in old or "windowMs" not in old:
        return None
    burst = round(old["capacity"]) if algorithm == "token_bucket" and "capacity" in old else None
    return DefaultLimit(
        limit=round(old["maxRequests"]), window_ms=max(1, round(old["windowMs"])), algorithm=algorithm, burst=burst
    )


def _redis(redis: Mapping[str, Any]) -> Iterator[_Moved]:
    address = _address(redis)
    for name in redis:
        if address is None:
            yield _Moved(f"redis.{name}", {}, "there is neither redis.host nor redis.url")
        elif name in {"port", "db", "password"} and "url" in redis:
            yield _Moved(f"redis.{name}", {}, "redis.url says it, if anything does")
        elif name in {"host", "port", "url", "password", "db"}:
            yield _Moved(f"redis.{name}", {"redis": address, "cache.redis": address})


def _address(redis: Mapping[str, Any]) -> RedisAddress | None:
    if "url" in redis:
        return parse_store_url(redis["url"])
    if "host" not in redis:
        return None
    try:
        endpoint = parse_endpoint(f"{_host(redis['host'])}:{redis.get('port', _REDIS_PORT)}")
    except ValueError as wrong:
        raise InvalidOldConfig([Finding("redis.host", str(wrong))]) from None
    return RedisAddress(
        layout=Layout.SINGLE,
        endpoints=(endpoint,),
        db=int(redis.get("db", 0)),
        credentials=Credentials(password=Secret(redis.get("password", ""))),
    )


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
