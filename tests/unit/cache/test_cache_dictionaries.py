"""Dictionaries of a cache with a disk: trained on what it writes, found again after a restart."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from ratelimit_service.cache.compression import CompressionEngine, Method
from ratelimit_service.cache.dictionaries import Dictionary, DictionaryHistory, train, train_if_better
from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.profiles import CacheSettings, DiskSettings
from ratelimit_service.cache.service import CacheService
from ratelimit_service.cache.training import ENOUGH_SAMPLES, DictionaryKeeper
from support.sessions import session, sessions

MIB = 1024 * 1024


def settings(path: Path, **others: Any) -> CacheSettings:
    disk = DiskSettings(path=path, max_bytes=8 * MIB)
    return CacheSettings(**{"dictionary": True, "compression": Method.ZSTD, "disk": disk, **others})


def alike(count: int, seed: int = 1) -> list[bytes]:
    return [json.dumps(value).encode() for value in sessions(count, seed).values()]


def test_a_dictionary_is_trained_used_and_found_after_a_restart(tmp_path: Path) -> None:
    """What was packed with it is read by the next process, also after everything before was cleared."""

    async def main() -> tuple[int, float, object, object, int]:
        values = sessions(ENOUGH_SAMPLES)
        async with CacheService[Any](settings(tmp_path)) as first:
            await first.set_many(values)
            before = first.stats().compression
            await first._dictionaries.look()
            await first.clear()
            await first.set("after", values["s7"])
            after = first.stats().compression
            packed_bytes = after.packed_bytes - before.packed_bytes
            ratio = (after.raw_bytes - before.raw_bytes) / packed_bytes
            adopted = first.stats().dictionaries_adopted
        async with CacheService[Any](settings(tmp_path, dictionary=False)) as second:
            found = await second.get("after")
            return adopted, ratio, found, values["s7"], second.stats().dictionaries

    adopted, ratio, found, wanted, known = asyncio.run(main())

    assert (adopted, found, known) == (1, wanted, 1)
    assert ratio > 2


def test_too_few_values_or_such_as_have_nothing_in_common_give_no_dictionary(tmp_path: Path) -> None:
    """One value less than enough; and random ones, of which a second round does not train again."""

    async def main() -> tuple[int, int]:
        few, other = tmp_path / "few", tmp_path / "other"
        async with CacheService[Any](settings(few)) as cache, CacheService[Any](settings(other)) as random_values:
            await cache.set_many(sessions(ENOUGH_SAMPLES - 1))
            await cache._dictionaries.look()
            draw = random.Random(1)
            await random_values.set_many({f"r{at}": draw.randbytes(300) for at in range(ENOUGH_SAMPLES)})
            await random_values._dictionaries.look()
            await random_values._dictionaries.look()
            return cache.stats().dictionaries, random_values.stats().dictionaries

    assert asyncio.run(main()) == (0, 0)


def test_a_cache_that_is_not_asked_to_trains_nothing(tmp_path: Path) -> None:
    """Neither without the setting, nor where gzip packs; values are not kept as samples then."""

    async def main() -> list[tuple[bool, int]]:
        seen = []
        without: tuple[dict[str, Any], ...] = ({"dictionary": False}, {"compression": Method.GZIP})
        for number, others in enumerate(without):
            async with CacheService[Any](settings(tmp_path / str(number), **others)) as cache:
                await cache.set_many(sessions(ENOUGH_SAMPLES))
                await cache._dictionaries.look()
                seen.append((cache._dictionaries.trains, len(cache._dictionaries._samples)))
        return seen

    assert asyncio.run(main()) == [(False, 0), (False, 0)]


def test_an_unknown_dictionary_is_looked_for_once_a_second(tmp_path: Path) -> None:
    """A payload whose dictionary is gone must not cost a search at each read."""
    now_us = 1_000_000
    level = DiskLevel(DiskSettings(path=tmp_path, max_bytes=8 * MIB), lambda: now_us)
    dictionary = train(alike(200))
    keeper = DictionaryKeeper(
        CompressionEngine(Method.ZSTD), lambda: now_us, lambda: 0, trains=False, redis=None, disk=level
    )

    async def main() -> tuple[bool, bool, bool]:
        nonlocal now_us
        await level.open()
        first = await keeper.learn(dictionary.id)
        level.keep(f"dictionary:{dictionary.id:08x}", dictionary.data)
        again = await keeper.learn(dictionary.id)
        now_us += 1_000_000
        later = await keeper.learn(dictionary.id)
        level.close()
        return first, again, later

    assert asyncio.run(main()) == (False, False, True)


def test_a_dictionary_that_is_not_what_its_name_says_is_not_used(tmp_path: Path) -> None:
    """Damage, or somebody else's bytes; and searches for many unknown names are forgotten, not piled up."""
    level = DiskLevel(DiskSettings(path=tmp_path, max_bytes=8 * MIB), lambda: 0)
    keeper = DictionaryKeeper(CompressionEngine(Method.ZSTD), lambda: 0, lambda: 0, trains=True, redis=None, disk=level)

    async def main() -> tuple[bool, int]:
        await level.open()
        level.keep(f"dictionary:{7:08x}", b"something else")
        found = await keeper.learn(7)
        for number in range(200):
            await keeper.learn(1_000 + number)
        level.close()
        return found, len(keeper._unknown)

    found, unknown = asyncio.run(main())

    assert not found
    assert unknown <= 64


def test_the_disk_keeps_the_newest_eight(tmp_path: Path) -> None:
    """So that years of trainings do not fill it."""
    level = DiskLevel(DiskSettings(path=tmp_path, max_bytes=8 * MIB), lambda: 0)

    async def main() -> list[bytes | None]:
        await level.open()
        for number in range(10):
            level.keep(str(number), bytes([number]))
        level.keep("9", bytes([9]))
        seen = [level.kept(str(number)) for number in (0, 1, 2, 9)]
        level.close()
        return seen

    assert asyncio.run(main()) == [None, None, b"\x02", b"\x09"]


def test_a_new_dictionary_must_gain_a_tenth() -> None:
    """On samples that it was not trained on; one that is trained on the same again gains nothing."""
    samples = alike(400)
    first = train_if_better(samples, 3, None)
    assert first is not None

    assert train_if_better(alike(400, seed=2), 3, first) is None
    changed = [json.dumps({"other": session(random.Random(at)), "kind": "invoice"}).encode() for at in range(400)]
    assert train_if_better(changed, 3, Dictionary.of(b"x" * 100)) is not None
    assert train_if_better([b""] * 400, 3, None) is None


def test_a_history_that_learns_keeps_the_one_in_use() -> None:
    """What is only read with goes first, oldest first; learning one twice changes nothing."""
    used, *others = (Dictionary.of(bytes([number])) for number in range(4))
    history = DictionaryHistory([used], kept=3)
    for each in (*others, others[2]):
        history.know(each)

    assert history.current is used
    assert history.ids() == (used.id, others[1].id, others[2].id)
    assert len(history) == 3
