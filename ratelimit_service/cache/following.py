"""Go by a profile's file as it changes.

What can change in a running cache does; the rest is named in a warning, and takes effect at the next start. A file that
is not valid any more changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from ratelimit_service.cache.profiles import CacheSettings, InvalidProfile, load_profile

__all__ = ["EVERY_S", "LIVE_SETTINGS", "ProfileFollower", "adopted"]

EVERY_S: Final = 1.0
"""How often the file is looked at."""

LIVE_SETTINGS: Final = frozenset(
    {"delta_us", "ttl_us", "stale_on_error_us", "negative_ttl_us", "early_refresh_percent", "name"}
)
"""What can change in a running cache."""

_LOGGER: Final = logging.getLogger(__name__)


def adopted(running: CacheSettings, wanted: CacheSettings) -> tuple[CacheSettings, tuple[str, ...]]:
    """The settings of a running cache that shall go by others, and the names of those that wait for its next start."""
    changed = [name for name in CacheSettings.__struct_fields__ if getattr(wanted, name) != getattr(running, name)]
    live = {name: getattr(wanted, name) for name in changed if name in LIVE_SETTINGS}
    return msgspec.structs.replace(running, **live), tuple(name for name in changed if name not in LIVE_SETTINGS)


class ProfileFollower:
    """Looks at one file.

    Args:
        path: The profile.
        secrets: As with `load_profile`.
        adopt: Takes the settings, returns the names of those that wait for the next start.
    """

    def __init__(self, path: Path, secrets: Path, adopt: Callable[[CacheSettings], tuple[str, ...]]) -> None:
        self._path = path
        self._secrets = secrets
        self._adopt = adopt
        self._content = self._read()

    def look(self) -> None:
        """Look once. Raises nothing; what is wrong is logged, once per content."""
        content = self._read()
        if content is None or content == self._content:
            return
        self._content = content
        try:
            settings = load_profile(self._path, secrets=self._secrets)
        except (InvalidProfile, OSError) as error:
            _LOGGER.warning("the cache goes on as before, its profile is not valid: %s", error)
            return
        waiting = self._adopt(settings)
        if waiting:
            _LOGGER.warning("%s: these take effect at the next start: %s", self._path, ", ".join(waiting))

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(EVERY_S)
            # A file system may take its time.
            if await asyncio.to_thread(self._read) != self._content:
                self.look()

    def _read(self) -> bytes | None:
        """The file's content; None while it cannot be read, as when it is being replaced."""
        try:
            return self._path.read_bytes()
        except OSError:
            return None
