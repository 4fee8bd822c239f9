"""A cache's own zstd dictionaries: trained on what it writes, stored where its payloads lie, used for new ones.

A payload names the dictionary that it needs. So a new one is stored in Redis and on disk *before* anything is packed
with it, and who meets a name that it does not know asks there. Replicas agree by taking up what is published: the one
that was published last is everybody's by the next round. A dictionary holds parts of values; it is kept as they are,
sealed where they are sealed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ratelimit_service.cache.compression import CompressionEngine, Method
from ratelimit_service.cache.dictionaries import Dictionary, train_if_better
from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.errors import LevelUnavailable

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["ENOUGH_SAMPLES", "EVERY_S", "DictionaryKeeper"]

EVERY_S: Final = 10.0
"""Pause between two rounds."""

ENOUGH_SAMPLES: Final = 200
"""From so many values on a dictionary is trained."""

_MOST_SAMPLES: Final = 512
_LARGEST_SAMPLE_BYTES: Final = 2_048
"""Together 1 MiB at the most, beside the budget of the level in memory."""

_TRY_AGAIN_US: Final = 6 * 3_600 * 1_000_000
"""After a training: what is written changes slowly."""

_ASK_AGAIN_US: Final = 1_000_000
_MOST_UNKNOWN: Final = 64
_LEAST_LIFETIME_US: Final = 30 * 86_400 * 1_000_000
_RENEW_US: Final = 3_600 * 1_000_000


class DictionaryKeeper:
    """See the module. Without zstd it does nothing, and knows no dictionary.

    Args:
        engine: What packs with them.
        now_us: Reads the clock.
        lifetime_us: How long a payload may live, at the most.
        trains: Train on what is written; else only what others trained is read.
        redis, disk: Where payloads lie, and with them dictionaries.

    Attributes:
        adopted: Times that another dictionary was taken into use.
    """

    def __init__(
        self,
        engine: CompressionEngine,
        now_us: Callable[[], int],
        lifetime_us: Callable[[], int],
        *,
        trains: bool,
        redis: RedisLevel | None,
        disk: DiskLevel | None,
    ) -> None:
        self._engine = engine
        self._now_us = now_us
        self._lifetime_us = lifetime_us
        self.trains = trains and engine.method is Method.ZSTD
        self._redis = redis
        self._disk = disk
        self._samples: deque[bytes] = deque(maxlen=_MOST_SAMPLES)
        self._unknown: dict[int, int] = {}
        self._train_from_us = 0
        self._renew_from_us = 0
        self.adopted = 0

    def sample(self, data: bytes) -> None:
        """A value is about to be packed."""
        if self.trains and len(data) <= _LARGEST_SAMPLE_BYTES:
            self._samples.append(data)

    async def learn(self, dictionary_id: int) -> bool:
        """Find a dictionary that a payload names; whether it is known now."""
        now_us = self._now_us()
        if self._unknown.get(dictionary_id, 0) > now_us:
            return False
        found = self._from_disk(dictionary_id) or await self._from_redis(dictionary_id)
        if found is None:
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[dictionary_id] = now_us + _ASK_AGAIN_US
            return False
        self._engine.dictionaries.know(found)
        self._keep_on_disk(found)
        return True

    def _from_disk(self, dictionary_id: int) -> Dictionary | None:
        data = None if self._disk is None else self._disk.kept(_name(dictionary_id))
        return _checked(data, dictionary_id)

    async def _from_redis(self, dictionary_id: int) -> Dictionary | None:
        if self._redis is None:
            return None
        try:
            return _checked(await self._redis.dictionary(dictionary_id), dictionary_id)
        except LevelUnavailable:
            return None

    def _keep_on_disk(self, dictionary: Dictionary) -> None:
        if self._disk is not None:
            self._disk.keep(_name(dictionary.id), dictionary.data)

    async def look(self) -> None:
        """One round: take up what was published, else train and publish. Raises nothing: the next round does it."""
        if not self.trains:
            return
        try:
            if await self._takes_up_what_is_published():
                return
            trained = await self._trained()
            if trained is not None:
                await self._publish(trained)
                self._adopt(trained)
            elif self._engine.dictionaries.current is not None and self._now_us() >= self._renew_from_us:
                await self._publish(self._engine.dictionaries.current)
        except LevelUnavailable:
            # Nothing is packed with a dictionary that the others could not find.
            self._train_from_us = 0

    async def _takes_up_what_is_published(self) -> bool:
        published = None if self._redis is None else await self._redis.dictionary(None)
        if published is None:
            return False
        dictionary, current = Dictionary.of(published), self._engine.dictionaries.current
        if current is not None and current.id == dictionary.id:
            return False
        self._adopt(dictionary)
        return True

    async def _trained(self) -> Dictionary | None:
        now_us = self._now_us()
        if len(self._samples) < ENOUGH_SAMPLES or now_us < self._train_from_us:
            return None
        self._train_from_us = now_us + _TRY_AGAIN_US
        samples, engine = list(self._samples), self._engine
        return await asyncio.to_thread(train_if_better, samples, engine.level, engine.dictionaries.current)

    async def _publish(self, dictionary: Dictionary) -> None:
        if self._redis is not None:
            lifetime_us = max(_LEAST_LIFETIME_US, 2 * self._lifetime_us())
            await self._redis.publish_dictionary(dictionary.id, dictionary.data, lifetime_us=lifetime_us)
        self._renew_from_us = self._now_us() + _RENEW_US

    def _adopt(self, dictionary: Dictionary) -> None:
        self._keep_on_disk(dictionary)
        self._engine.adopt(dictionary)
        self.adopted += 1

    async def run(self) -> None:
        """Round after round."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.look()


def _name(dictionary_id: int) -> str:
    return f"dictionary:{dictionary_id:08x}"


def _checked(data: bytes | None, dictionary_id: int) -> Dictionary | None:
    """A dictionary whose content is what its name says; None for damage, and for none."""
    if data is None:
        return None
    dictionary = Dictionary.of(data)
    return dictionary if dictionary.id == dictionary_id else None
