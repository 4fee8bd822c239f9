"""Check a cache's configuration: every problem at once, each with its path and what would be right.

Two shapes are taken. A profile is a `CacheProfile` manifest, or its `spec` alone, and is checked by the model that the
CRD is made of. The old shape is camelCase, of the library that came before; it is checked field by field, and whatever
is unknown there is told and never passed over.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.model import API_VERSION
from ratelimit_service.policy.profile_model import CacheProfile, CacheProfileSpec, Preset
from ratelimit_service.policy.schema import fields_of
from ratelimit_service.policy.wording import hint, listed, shown
from ratelimit_service.redis_server.address import InvalidStoreAddress, parse_store_url

__all__ = ["CacheConfigValidator", "ConfigShape", "Finding", "ValidationReport"]


class ConfigShape(enum.Enum):
    """What a configuration was taken for."""

    MANIFEST = "manifest"
    SPEC = "spec"
    OLD = "old"
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, or worth knowing.

    Attributes:
        path: Where, as kubectl writes it: `spec.l1.maxMemory`; empty: the whole.
        message: What is wrong.
        hint: What would be right; empty where the message says it.
    """

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text} ({self.hint})" if self.hint else text


class ValidationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a check.

    Attributes:
        shape: What the configuration was taken for.
        errors: What makes it unusable.
        warnings: What works and is hardly meant.
    """

    shape: ConfigShape
    errors: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether it can be used."""
        return not self.errors


class CacheConfigValidator:
    """Checks configurations. Has no state."""

    def validate(self, config: object) -> ValidationReport:
        """Check a mapping of either shape. Raises nothing, whatever it is given."""
        if not isinstance(config, Mapping):
            error = Finding("", f"a mapping is wanted, not {shown(type(config).__name__)}")
            return ValidationReport(shape=ConfigShape.UNKNOWN, errors=(error,))
        names = [name for name in config if isinstance(name, str)]
        if len(names) < len(config):
            return ValidationReport(shape=ConfigShape.UNKNOWN, errors=(Finding("", "every key is a string"),))
        if "apiVersion" in config or "kind" in config:
            return _of_manifest(config, ConfigShape.MANIFEST)
        if any(name in _OLD_ONLY for name in names):
            return _of_old(config)
        if not names or any(name in fields_of(CacheProfileSpec) for name in names):
            return _of_spec(config)
        known = [*fields_of(CacheProfileSpec), *_OLD]
        unknown = tuple(
            Finding(name, f"unknown field `{shown(name)}`", hint(name, known).removeprefix("; ")) for name in names
        )
        return ValidationReport(shape=ConfigShape.UNKNOWN, errors=unknown)


def _of_spec(config: Mapping[str, object]) -> ValidationReport:
    manifest = {
        "apiVersion": API_VERSION,
        "kind": CacheProfile.__name__,
        "metadata": {"name": "profile", "namespace": "default"},
        "spec": config,
    }
    report = _of_manifest(manifest, ConfigShape.SPEC)
    return msgspec.structs.replace(
        report, errors=tuple(_below_spec(each) for each in report.errors), warnings=report.warnings
    )


def _below_spec(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, path=finding.path.removeprefix("spec").removeprefix("."))


def _of_manifest(config: Mapping[str, object], shape: ConfigShape) -> ValidationReport:
    if config.get("kind") != CacheProfile.__name__:
        kind = Finding("kind", f"`{shown(str(config.get('kind', '')))}` is no `CacheProfile`")
        return ValidationReport(shape=shape, errors=(kind,))
    try:
        manifest, problems = decode_manifest(_as_json(config))
    except (TypeError, ValueError, RecursionError) as error:
        return ValidationReport(shape=shape, errors=(Finding("", f"not made of plain values: {shown(str(error))}"),))
    errors = tuple(_split(problem.path, problem.message) for problem in problems)
    warnings = tuple(_warnings(manifest.spec)) if isinstance(manifest, CacheProfile) else ()
    return ValidationReport(shape=shape, errors=errors, warnings=warnings)


def _as_json(config: object) -> Any:
    """Plain values, as the decoder takes them.

    Raises:
        TypeError: There are others.
        RecursionError: It contains itself.
    """
    return msgspec.json.decode(msgspec.json.encode(config))


def _split(path: str, message: str) -> Finding:
    """Take the hint out of a message: what stands after the semicolon."""
    text, _, tip = message.partition("; ")
    return Finding(path, text, tip)


def _warnings(spec: CacheProfileSpec) -> Iterator[Finding]:
    stale_us, ttl_us = spec.stale_on_error_us, spec.ttl_us
    if ttl_us == 0:
        yield Finding("ttl", "values expire at once, so nothing is cached")
    if spec.negative_ttl_us is not None and ttl_us is not None and spec.negative_ttl_us > ttl_us:
        yield Finding("negativeTTL", "is capped by the ttl of values", "make it shorter")
    if spec.l2 is not None and spec.l2.enabled and not spec.store.endpoints:
        yield Finding("l2.enabled", "there is no L2 without a Redis store", "give the store a type and endpoints")
    holds_secrets = spec.preset in {Preset.AUTH_TOKENS, Preset.SESSIONS}
    if spec.l3 is not None and spec.l3.enabled and holds_secrets and spec.l3.encryption_secret_ref is None:
        yield Finding("l3", "tokens and sessions would lie on the disk in clear", "give encryptionSecretRef")
    if stale_us and spec.preset is Preset.AUTH_TOKENS:
        yield Finding("staleOnError", "a revoked token could be served while loading fails", "leave it out")


Check = Callable[[object], str]
"""What is wrong with a value; empty: nothing."""


def _number(least: float, most: float, what: str) -> Check:
    def check(value: object) -> str:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (
            "" if is_number and least <= float(str(value)) <= most else f"{what} from {least:g} to {most:g} is wanted"
        )

    return check


def _one_of(*names: str) -> Check:
    def check(value: object) -> str:
        return "" if value in names else f"one of {listed(names)} is wanted"

    return check


def _switch(value: object) -> str:
    return "" if isinstance(value, bool) else "true or false is wanted"


def _text(value: object) -> str:
    return "" if isinstance(value, str) else "a string is wanted"


def _url(value: object) -> str:
    if not isinstance(value, str):
        return "a string is wanted"
    try:
        parse_store_url(value)
    except InvalidStoreAddress as error:
        return str(error)
    return ""


_PERCENT: Final = _number(1, 100, "a percentage")
_COUNT: Final = _number(1, 100_000_000, "a number")

_OLD: Final[Mapping[str, Check | Mapping[str, Check]]] = {
    "maxMemoryCacheSize": _COUNT,
    "memoryConfig": {
        "maxMemoryMB": _number(1, 1 << 30, "megabytes"),
        "warningThresholdPercent": _PERCENT,
        "criticalThresholdPercent": _PERCENT,
    },
    "defaultTTL": _number(0, 31_622_400, "seconds"),
    "compressionConfig": {
        "enableCompression": _switch,
        "thresholdBytes": _number(0, 1 << 30, "bytes"),
        "algorithm": _one_of("gzip", "zstd", "none"),
        "level": _number(1, 22, "a level"),
    },
    "warmingConfig": {"enableBackgroundWarming": _switch, "adaptiveWarming": _switch},
    "windowMs": _number(1, 31_622_400_000, "milliseconds"),
    "maxRequests": _number(0, 2**53 - 1, "a number"),
    "algorithm": _one_of("fixed_window", "sliding_window", "token_bucket"),
    "keyPrefix": _text,
    "capacity": _COUNT,
    "refillRate": _number(0, 1e9, "hits per second"),
    "redis": {
        "host": _text,
        "port": _number(1, 65_535, "a port"),
        "url": _url,
        "password": _text,
        "db": _number(0, 65_535, "a database"),
    },
}
"""Fields of the old shape."""

_OLD_ONLY: Final = frozenset(_OLD)


def _of_old(config: Mapping[str, object]) -> ValidationReport:
    errors = [*_check_old(config, _OLD, ""), *_check_together(config)]
    return ValidationReport(shape=ConfigShape.OLD, errors=tuple(errors), warnings=tuple(_old_warnings(config)))


def _check_old(
    config: Mapping[str, object], known: Mapping[str, Check | Mapping[str, Check]], path: str
) -> Iterator[Finding]:
    for name, value in config.items():
        place = f"{path}{shown(str(name))}"
        check = known.get(name)
        if check is None:
            yield Finding(place, f"unknown field `{shown(str(name))}`", hint(str(name), known).removeprefix("; "))
        elif not isinstance(check, Mapping):
            problem = check(value)
            if problem:
                yield Finding(place, problem)
        elif not isinstance(value, Mapping):
            yield Finding(place, "a mapping is wanted")
        else:
            yield from _check_old(value, check, f"{place}.")


def _part(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _check_together(config: Mapping[str, object]) -> Iterator[Finding]:
    memory, packed, redis = _part(config, "memoryConfig"), _part(config, "compressionConfig"), _part(config, "redis")
    warning, critical = memory.get("warningThresholdPercent", 70), memory.get("criticalThresholdPercent", 85)
    if isinstance(warning, int | float) and isinstance(critical, int | float) and warning >= critical:
        yield Finding("memoryConfig.warningThresholdPercent", "is below criticalThresholdPercent")
    level = packed.get("level")
    if isinstance(level, int) and level > 9 and packed.get("algorithm", "gzip") == "gzip":
        yield Finding("compressionConfig.level", "gzip has levels 1 to 9")
    if "url" in redis and "host" in redis:
        yield Finding("redis.url", "says where Redis is, and so does redis.host", "give one of them")


def _old_warnings(config: Mapping[str, object]) -> Iterator[Finding]:
    if config.get("algorithm") != "token_bucket":
        for name in ("capacity", "refillRate"):
            if name in config:
                yield Finding(name, "is used by token_bucket only")
    if config.get("maxRequests") == 0:
        yield Finding("maxRequests", "denies every request")
    packed = _part(config, "compressionConfig")
    if packed.get("enableCompression") is False and len(packed) > 1:
        yield Finding("compressionConfig", "is not used: enableCompression is false")
