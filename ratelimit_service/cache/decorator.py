"""`@cached`: a function whose results are cached by its arguments."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar, cast

import msgspec

from ratelimit_service.cache.service import CacheService

__all__ = ["Key", "KeysOfCalls", "cached", "key_of_call"]

P = ParamSpec("P")
T = TypeVar("T")

Key = str | Callable[..., str]
"""A format of the arguments' names, such as `user:{user_id}`, or a function of the arguments."""

_LONGEST_ARGUMENTS: Final = 200
"""Longer ones are replaced by their digest."""


def cached(
    cache: CacheService[Any],
    *,
    key: Key | None = None,
    ttl_ms: int | None = None,
    tags: Sequence[str] = (),
    soft_timeout_ms: int | None = None,
    hard_timeout_ms: int | None = None,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Cache what an async function returns; it runs once per key, whoever else asks meanwhile.

    Args:
        cache: Where. Values have to be such as its codec can write.
        key: What tells calls apart; None: the function's name and all its arguments, which are to be plain values.
        ttl_ms: How long a result is fresh; None: as in the cache's settings.
        tags: Formats of the arguments' names, such as `user:{user_id}`.
        soft_timeout_ms: As with `CacheService.get_or_load`.
        hard_timeout_ms: Likewise.

    The function has an attribute `key_for(*args, **kwargs)`, the key of a call, with which its result can be
    invalidated.

    Raises:
        TypeError: The function is not async, or (on a call) an argument is no plain value and there is no `key`.
    """

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} is not async; sync functions are cached by SyncCacheService.cached")
        keys = KeysOfCalls(function, key, tags)

        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            value = await cache.get_or_load(
                keys.key_for(*args, **kwargs),
                lambda: function(*args, **kwargs),
                ttl_ms=ttl_ms,
                tags=keys.tags_for(*args, **kwargs),
                soft_timeout_ms=soft_timeout_ms,
                hard_timeout_ms=hard_timeout_ms,
            )
            return cast("T", value)

        call.key_for = keys.key_for  # type: ignore[attr-defined]  # documented above
        return call

    return decorate


def key_of_call(name: str, arguments: dict[str, Any]) -> str:
    """A key that tells apart the calls of a function: equal for equal arguments, however they are passed.

    Raises:
        TypeError: An argument is no plain value.
    """
    try:
        text = msgspec.json.encode(arguments, order="sorted").decode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"an argument of {name} is no plain value; give `key`: {error}") from error
    if len(text) > _LONGEST_ARGUMENTS:
        text = hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
    return f"{name}:{text}"


class KeysOfCalls:
    """The keys and tags of one function's calls."""

    def __init__(self, function: Callable[..., Any], key: Key | None, tags: Sequence[str]) -> None:
        self._signature = inspect.signature(function)
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._key = key
        self._tags = tuple(tags)

    def key_for(self, *args: Any, **kwargs: Any) -> str:
        """The key of a call."""
        if callable(self._key):
            return self._key(*args, **kwargs)
        arguments = self._arguments(args, kwargs)
        return key_of_call(self._name, arguments) if self._key is None else self._key.format(**arguments)

    def tags_for(self, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """The tags of a call."""
        if not self._tags:
            return ()
        arguments = self._arguments(args, kwargs)
        return tuple(tag.format(**arguments) for tag in self._tags)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments
