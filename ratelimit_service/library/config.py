"""What a limiter of the library is built from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import FailureMode
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.library.results import InvalidRateLimit
from ratelimit_service.policy.profile_model import (
    DEFAULT_CRITICAL_PERCENT,
    DEFAULT_WARNING_PERCENT,
    NewMaster,
    WarmingMode,
)
from ratelimit_service.redis_server.address_model import RedisAddress

__all__ = ["DEFAULT_NAMESPACE", "DefaultLimit", "RateLimitConfig"]

DEFAULT_NAMESPACE: Final = "library"
_MIB: Final = 1024 * 1024
_RANGES: Final = {
    "deadline_ms": (1, 60_000),
    "horizon_ms": (10, 10_000),
    "slots": (1, 1_000),
    "standing_percent": (0, 50),
    "wait_replicas": (0, 100),
    "max_keys": (1, 100_000_000),
    "max_memory_bytes": (_MIB, 2**50),
    "warning_percent": (1, 99),
    "critical_percent": (2, 100),
    "top_keys": (1, 1_000_000),
}


class DefaultLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The limit of checks that name none (`check_default`); fields as in `RateLimitRequest`."""

    limit: int
    window_ms: int
    algorithm: str = "sliding_window"
    burst: int | None = None


class RateLimitConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a limiter counts. One that exists is valid.

    Attributes:
        namespace: Programs with one store and one namespace share counts; others do not.
        default: The limit of `check_default`; None: there is none.
        redis: Where replicas share their counts; None: this process counts alone.
        failure: What decides while the store is away or full.
        deadline_ms: When that decides if the store has not answered.
        raise_when_degraded: Then raise `RateLimitStoreLost` instead of answering.
        exact: Ask Redis on every check instead of leasing.
        horizon_ms: How far ahead a lease reaches.
        slots: Most replicas that there will be; None: not known. Makes the bound of failure mode `Share` known.
        standing_percent: Part of every limit that replicas own without asking; needs `slots`.
        wait_replicas: Replicas of the Redis server that must have a grant before it is spent; 0: none.
        new_master: What follows when Redis has lost its memory.
        max_keys, max_memory_bytes: What is held in this process at the most.
        warning_percent: Of these; from here on expired keys and idle limits go first, and nothing is warmed.
        critical_percent: From here on new keys of a crowding limit count in hashed counters that they share.
        warming: What is warmed without being asked: nothing, the busiest keys, or those as fast as it pays.
        top_keys: How many keys are remembered as the busiest.
        cache: Settings of the value cache that goes with it; None: there is none.

    Raises:
        InvalidRateLimit: With every field that is out of range; raised on construction.
    """

    namespace: str = DEFAULT_NAMESPACE
    default: DefaultLimit | None = None
    redis: RedisAddress | None = None
    failure: FailureMode = FailureMode.SHARE
    deadline_ms: int = 10
    raise_when_degraded: bool = False
    exact: bool = False
    horizon_ms: int = 200
    slots: int | None = None
    standing_percent: int = 0
    wait_replicas: int = 0
    new_master: NewMaster = NewMaster.LEARN
    max_keys: int = 1_000_000
    max_memory_bytes: int = 200 * _MIB
    warning_percent: int = DEFAULT_WARNING_PERCENT
    critical_percent: int = DEFAULT_CRITICAL_PERCENT
    warming: WarmingMode = WarmingMode.NONE
    top_keys: int = 1_000
    cache: CacheSettings | None = None

    def __post_init__(self) -> None:
        problems = dict(self._problems())
        if problems:
            raise InvalidRateLimit(problems)

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not self.namespace:
            yield "namespace", "must not be empty"
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (type(value) is int and least <= value <= most):
                yield name, f"{least} to {most} is wanted, not {value!r}"
        if self.warning_percent >= self.critical_percent:
            yield "warning_percent", f"must be below critical_percent, which is {self.critical_percent}"
        if self.standing_percent and not self.slots:
            yield "standing_percent", "needs slots: nobody owns a share of an unknown number"
