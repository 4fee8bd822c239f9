"""Says in the log when a store is away or full, and when it works again.

Metrics and `/health/cache` show the same at any time; who reads the log of a service that was started without its
Redis must find out there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from ratelimit_service.quota.health import CountingStatus, StoreHealth, StoresHealth

__all__ = ["StoreWatch", "Wording"]

LOOK_S: Final = 1.0
"""Between two looks: longer than a store takes to connect. What is told was so at two of them, one after the other."""


class Wording(Protocol):
    """A log with fields, such as structlog's."""

    def info(self, event: str, **fields: object) -> object:
        """All is well."""

    def warning(self, event: str, **fields: object) -> object:
        """It is not."""


class StoreWatch:
    """Compares the stores' health with what was told last."""

    def __init__(self, health: Callable[[], StoresHealth], log: Wording) -> None:
        """Tell `log` what becomes of `health`; all are thought to work at first."""
        self._health = health
        self._log = log
        self._told: dict[str, CountingStatus] = {}
        self._seen: dict[str, CountingStatus] = {}

    def look(self) -> None:
        """Tell what has changed and stayed so; a store that is gone from the configuration is not told."""
        profiles = self._health().profiles
        for profile, health in profiles.items():
            told = self._told.setdefault(profile, CountingStatus.HEALTHY)
            # A busy machine loses a round trip now and then, which is no news.
            if told is not health.status is self._seen.get(profile):
                self._tell(profile, health)
                self._told[profile] = health.status
        self._seen = {profile: health.status for profile, health in profiles.items()}
        self._told = {profile: status for profile, status in self._told.items() if profile in profiles}

    def _tell(self, profile: str, health: StoreHealth) -> None:
        match health.status:
            case CountingStatus.HEALTHY:
                self._log.info("store works again", profile=profile)
            case CountingStatus.DEGRADED:
                problems = () if health.l2 is None else health.l2.problems
                self._log.warning("store fails", profile=profile, problems=list(problems))
            case CountingStatus.UNHEALTHY:
                self._log.warning("store is full, new keys are not counted", profile=profile)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
