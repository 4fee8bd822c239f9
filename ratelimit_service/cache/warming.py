"""Fill a cold cache ahead of its use: named keys, or those that were worth most.

Worth is hits × cost of a load. A fixed number of candidates is counted; a newcomer takes the place of the least worth
and inherits its count, so that what is worth much is among them whatever the traffic (Metwally, Agrawal, El Abbadi,
"Efficient Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005). Counts fade, so that yesterday's
keys go.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from ratelimit_service.cache.l1 import Pressure

__all__ = [
    "DEFAULT_PER_SECOND",
    "CacheWarmer",
    "KeyLoader",
    "KeyWorth",
    "Progress",
    "Warmable",
    "WarmingReport",
    "adapted",
]

DEFAULT_PER_SECOND: Final = 500
"""Keys that are warmed per second."""

_BATCH_S: Final = 0.02
_LOOKED_AT: Final = 32
_LEAST_PER_SECOND: Final = 10
_MOST_PER_SECOND: Final = 5_000

KeyLoader = Callable[[str], Awaitable[Any]]
"""Loads the value of a key; None: there is none."""


class WarmingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of warming.

    Attributes:
        warmed: Keys that are in memory now by it.
        skipped: Keys that were in memory before, have no value, or were not come to.
        failed: Keys whose load failed.
        stopped: It ended early: memory reached its warning level.
    """

    warmed: int = 0
    skipped: int = 0
    failed: int = 0
    stopped: bool = False

    @property
    def done(self) -> int:
        """Keys that were dealt with."""
        return self.warmed + self.skipped + self.failed


Progress = Callable[[WarmingReport], Awaitable[None] | None]
"""Told how far warming has come."""


class Warmable(Protocol):
    """What can be warmed: `CacheService`."""

    @property
    def pressure(self) -> Pressure:
        """How full memory is."""

    def is_held(self, key: str) -> bool:
        """Whether memory would answer for a key."""

    async def get(self, key: str) -> Any:
        """Read a key from the levels below."""

    async def get_or_load(self, key: str, loader: Callable[[], Awaitable[Any]]) -> Any:
        """Read or load a key."""


class KeyWorth:
    """The keys that are worth most, by hits × cost; space for `most` of them. Pure."""

    __slots__ = ("_most", "_worth")

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._worth: dict[str, int] = {}

    def __len__(self) -> int:
        """Candidates."""
        return len(self._worth)

    def note(self, key: str, cost_us: int) -> None:
        """A key was asked for whose load takes so long."""
        worth = self._worth
        if key in worth:
            worth[key] += cost_us
        elif len(worth) < self._most:
            worth[key] = cost_us
        else:
            # The least of the oldest few: newcomers go to the end, so all are looked at in turn.
            least = min(itertools.islice(worth, _LOOKED_AT), key=worth.__getitem__)
            worth[key] = worth.pop(least) + cost_us

    def of(self, key: str) -> int:
        """What a key is worth, 0 if it is no candidate."""
        return self._worth.get(key, 0)

    def top(self, count: int) -> list[str]:
        """The keys that are worth most, the first first."""
        return heapq.nlargest(count, self._worth, key=lambda key: self._worth[key])

    def fade(self) -> None:
        """Halve all worth; what has none left goes."""
        self._worth = {key: worth // 2 for key, worth in self._worth.items() if worth > 1}


def adapted(per_second: int, used: int, warmed: int) -> int:
    """How fast to warm from now on: half as fast where less than half of what was warmed got used, faster where most.

    Args:
        per_second: How fast it was.
        used: Warmed keys that were asked for since.
        warmed: Keys that were warmed.
    """
    if warmed == 0:
        return per_second
    if used * 2 < warmed:
        return max(_LEAST_PER_SECOND, per_second // 2)
    return min(_MOST_PER_SECOND, per_second + per_second // 4) if used * 10 >= warmed * 9 else per_second


class CacheWarmer:
    """Warms one cache.

    Args:
        cache: Which.
        top_keys: Most keys that are warmed in the background.
    """

    def __init__(self, cache: Warmable, *, top_keys: int = 1_000) -> None:
        self._cache = cache
        self._top_keys = top_keys
        self._loaders: dict[str, KeyLoader] = {}
        self.worth = KeyWorth(2 * top_keys)

    def load_with(self, prefix: str, loader: KeyLoader) -> None:
        """Have keys that begin so loaded by this loader; the longest prefix of a key decides."""
        self._loaders[prefix] = loader

    def loader_of(self, key: str) -> KeyLoader | None:
        """What loads a key, None if nothing was registered for it."""
        prefixes = [prefix for prefix in self._loaders if key.startswith(prefix)]
        return self._loaders[max(prefixes, key=len)] if prefixes else None

    def note(self, key: str, cost_us: int) -> None:
        """A key was loaded, or asked for; see `KeyWorth`."""
        self.worth.note(key, cost_us)

    async def warm(
        self,
        keys: Iterable[str],
        loader: KeyLoader | None = None,
        *,
        per_second: int = DEFAULT_PER_SECOND,
        progress: Progress | None = None,
    ) -> WarmingReport:
        """Warm keys in their order, so many per second, until memory reaches its warning level.

        Raises:
            ValueError: `per_second` is less than 1.
        """
        if per_second < 1:
            raise ValueError(f"at least one key per second, not {per_second}")
        wanted = list(dict.fromkeys(keys))
        batch = max(1, round(per_second * _BATCH_S))
        report = WarmingReport()
        for start in range(0, len(wanted), batch):
            if self._cache.pressure is not Pressure.NORMAL:
                left = len(wanted) - start
                report = msgspec.structs.replace(report, skipped=report.skipped + left, stopped=True)
                break
            if start:
                await asyncio.sleep(batch / per_second)
            outcomes = await asyncio.gather(*(self._warm_one(key, loader) for key in wanted[start : start + batch]))
            report = WarmingReport(
                warmed=report.warmed + outcomes.count(True),
                skipped=report.skipped + outcomes.count(None),
                failed=report.failed + outcomes.count(False),
            )
            await _tell(progress, report)
        if report.stopped:
            await _tell(progress, report)
        return report

    async def run(self, *, every_s: float, adaptive: bool = False) -> None:
        """Warm the keys that are worth most, again and again; adaptive: faster while that pays, slower where not."""
        per_second = DEFAULT_PER_SECOND
        while True:
            await asyncio.sleep(every_s)
            top = self.worth.top(self._top_keys)
            before = {key: self.worth.of(key) for key in top}
            report = await self.warm(top, per_second=per_second)
            if adaptive and report.warmed:
                await asyncio.sleep(every_s)
                used = sum(self.worth.of(key) > worth for key, worth in before.items())
                per_second = adapted(per_second, min(used, report.warmed), report.warmed)
            self.worth.fade()

    async def _warm_one(self, key: str, loader: KeyLoader | None) -> bool | None:
        """True: it is in memory now; None: it was, or has no value; False: it failed."""
        if self._cache.is_held(key):
            return None
        load = loader or self.loader_of(key)
        try:
            if load is None:
                value = await self._cache.get(key)
            else:
                value = await self._cache.get_or_load(key, lambda: load(key))
        except Exception:  # noqa: BLE001  # a loader may raise anything; its key is counted as failed
            return False
        return None if value is None else True


async def _tell(progress: Progress | None, report: WarmingReport) -> None:
    if progress is not None:
        told = progress(report)
        if inspect.isawaitable(told):
            await told
