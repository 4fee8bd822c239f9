"""What the log tells of stores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ratelimit_service.assembly.store_watch import StoreWatch
from ratelimit_service.quota.health import MemoryLevel, SharedLevel, StoreHealth, StoresHealth, all_health, store_health
from support.virtual_time import run_virtually

AWAY = store_health(l2=SharedLevel(("redis:6379: refused",)))
WELL = store_health(l2=SharedLevel(()))
FULL = store_health(l1=MemoryLevel(1, 1, 1, 1, full=True))


class Said:
    """A log that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))


def told(*looks: Sequence[tuple[str, StoreHealth]]) -> list[tuple[str, str, dict[str, object]]]:
    said = Said()
    coming = [all_health(look) for look in looks]
    watch = StoreWatch(lambda: coming.pop(0), said)
    for _ in looks:
        watch.look()
    return said.lines


def test_a_store_that_is_away_is_told_once_and_so_is_its_return() -> None:
    """Also one that was away from the start, with what is wrong with it."""
    away, well = [("shop/one", AWAY), ("", WELL)], [("shop/one", WELL), ("", WELL)]

    lines = told(away, away, away, well, well, well)

    assert lines == [
        (
            "warning",
            "store fails",
            {"profile": "shop/one", "problems": ["redis:6379: refused"]},
        ),
        ("info", "store works again", {"profile": "shop/one"}),
    ]


def test_what_lasts_no_two_looks_is_not_told() -> None:
    """Nor is a store that works from the start."""
    assert told([("", WELL)], [("", AWAY)], [("", WELL)], [("", AWAY)], [("", WELL)], [("", WELL)]) == []


def test_a_full_store_is_told() -> None:
    """And one that has gone with its profile is not called well, nor forgotten to be told when it comes back."""
    full = [("", FULL)]

    assert told(full, full, [], full) == [
        ("warning", "store is full, new keys are not counted", {"profile": "default"}),
    ]


def test_it_looks_again_and_again() -> None:
    """Until it is cancelled."""
    looks = 0

    def health() -> StoresHealth:
        nonlocal looks
        looks += 1
        return all_health([])

    async def watching() -> None:
        task = asyncio.get_running_loop().create_task(StoreWatch(health, Said()).run())
        await asyncio.sleep(3.5)
        task.cancel()

    run_virtually(watching())

    assert looks == 3
