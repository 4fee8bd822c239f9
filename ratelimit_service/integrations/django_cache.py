"""A cache backend for Django.

    CACHES = {
        "default": {
            "BACKEND": "ratelimit_service.integrations.django_cache.TidegateCache",
            "LOCATION": "sessions",  # a profile that ships, or the path of a CacheProfile file
        }
    }

Values are what msgpack carries: None, booleans, numbers, text, bytes, lists, dicts. Nothing is ever unpickled, so
whoever may write to the Redis cannot run code here; a value of another kind raises `UnencodableValue` where the profile
has a level below memory. Values in memory are not copied: do not change what you have put or got.

One cache serves all threads of a process. A forked worker opens its own.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from ratelimit_service.cache.profiles import DEFAULT_SECRETS
from ratelimit_service.cache.sync import SyncCacheService

__all__ = ["TidegateCache"]

_FOR_EVER_MS: Final = 100 * 365 * 86_400_000

_open: dict[tuple[int, str, str], SyncCacheService[list[Any]]] = {}
_opening = threading.Lock()


def _cache_of(location: str, secrets: Path) -> SyncCacheService[list[Any]]:
    """The process's cache of a profile."""
    where = (os.getpid(), location, str(secrets))
    cache = _open.get(where)
    if cache is None:
        with _opening:
            cache = _open.get(where)
            if cache is None:
                cache = _open[where] = SyncCacheService.from_profile(location, secrets=secrets)
                atexit.register(cache.close)
    return cache


class TidegateCache(BaseCache):  # type: ignore[misc]  # Django ships no types
    """See the module.

    Args:
        location: `LOCATION`: the profile; empty for `api-responses`.
        params: The rest of the setting. `OPTIONS` may have `SECRETS`, the folder with the secrets that a profile names.
    """

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        options = params.get("OPTIONS", {})
        self._location = location or "api-responses"
        self._secrets = Path(options.get("SECRETS", DEFAULT_SECRETS))

    @property
    def service(self) -> SyncCacheService[list[Any]]:
        """The cache itself, for tags, health and metrics. Its values are one-element lists, since None is a value."""
        return _cache_of(self._location, self._secrets)

    def _ttl_ms(self, timeout: Any) -> int:
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return _FOR_EVER_MS if seconds is None else max(0, int(float(seconds) * 1000))

    def _key(self, key: Any, version: int | None) -> str:
        return str(self.make_and_validate_key(key, version=version))

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """The value of a key, or the default."""
        found = self.service.get(self._key(key, version))
        return default if found is None else found[0]

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Put a value; with a timeout of 0 or less the key has none afterwards."""
        ttl_ms = self._ttl_ms(timeout)
        if ttl_ms:
            self.service.set(self._key(key, version), [value], ttl_ms=ttl_ms)
        else:
            self.delete(key, version=version)

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Put a value unless the key has one; whether it was put. One of all replicas on a Redis does."""
        ttl_ms, is_added = self._ttl_ms(timeout), False
        name = self._key(key, version)
        if not ttl_ms:
            return self.service.get(name) is None

        def load() -> list[Any]:
            nonlocal is_added
            is_added = True
            return [value]

        # A load happens once among all who ask at the same time, in all processes: that is what `add` promises.
        self.service.get_or_load(name, load, ttl_ms=ttl_ms)
        return is_added

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give a value another lifetime; whether there was one."""
        found = self.service.get(self._key(key, version))
        if found is not None:
            self.set(key, found[0], timeout=timeout, version=version)
        return found is not None

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove a key; whether it had a value."""
        return self.service.delete(self._key(key, version))

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """The values of those keys that have one, in one round trip."""
        names = {self._key(key, version): key for key in keys}
        return {names[name]: found[0] for name, found in self.service.get_many(names).items()}

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        """Put several values; no key fails alone, so none is returned."""
        ttl_ms = self._ttl_ms(timeout)
        if ttl_ms:
            values = {self._key(key, version): [value] for key, value in data.items()}
            self.service.set_many(values, ttl_ms=ttl_ms)
        else:
            self.delete_many(data, version=version)
        return []

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Whether a key has a value."""
        return self.service.get(self._key(key, version)) is not None

    def clear(self) -> None:
        """Void all values, on all replicas."""
        self.service.clear()
