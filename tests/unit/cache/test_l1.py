"""The memory level: what it answers, what it refuses, and how it makes room."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_service.cache.entry import NEVER_US, NO_TERMS
from ratelimit_service.cache.l1 import L1, Eviction, Pressure
from ratelimit_service.cache.l1.level import MIN_BYTES

KIB = 1024
BUDGET_BYTES = 1_024 * KIB


def filled(level: L1[Any], count: int, size_bytes: int = 1_000, expires_us: int = NEVER_US) -> L1[Any]:
    """A level with so many entries put at 0."""
    for number in range(count):
        level.put(f"old-{number}", number, now_us=0, size_bytes=size_bytes, expires_us=expires_us)
    return level


def until(level: L1[Any], pressure: Pressure) -> L1[Any]:
    """Put entries that expire at 10 until the pressure is there."""
    for number in range(5_000):
        if level.pressure is pressure:
            break
        level.put(f"old-{number}", number, now_us=0, size_bytes=1_000, expires_us=10)
    assert level.pressure is pressure
    return level


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_entries": 0},
        {"max_bytes": MIN_BYTES - 1},
        {"warning_percent": 0},
        {"warning_percent": 85},
        {"critical_percent": 101},
    ],
)
def test_bounds_that_make_no_sense_are_refused(arguments: dict[str, int]) -> None:
    """At construction."""
    with pytest.raises(ValueError, match=r"expected|needed"):
        L1(**arguments)  # type: ignore[arg-type]


def test_an_entry_has_all_that_it_was_put_with() -> None:
    """Value, times, tags and cost come back."""
    level: L1[str] = L1()
    assert level.put("a", "x", now_us=5, expires_us=100, soft_expires_us=50, tags=("t", "u"), cost_us=7)
    entry = level.get("a", 5)

    assert entry is not None
    assert (entry.key, entry.value, entry.expires_us) == ("a", "x", 100)
    assert (entry.soft_expires_us, entry.tags, entry.cost_us) == (50, ("t", "u"), 7)


def test_an_entry_without_terms_shares_those_of_all() -> None:
    """Most entries pay for what few have with one reference."""
    level: L1[str] = L1()
    level.put("a", "x", now_us=0)
    entry = level.get("a", 0)

    assert entry is not None
    assert entry.terms is NO_TERMS
    assert (entry.soft_expires_us, entry.tags, entry.cost_us) == (NEVER_US, (), 0)


def test_an_entry_is_served_before_its_expiry_and_not_from_it_on() -> None:
    """The last microsecond is the one before."""
    level: L1[int] = L1()
    level.put("a", 1, now_us=0, expires_us=10)
    level.put("b", 1, now_us=0, expires_us=10)

    assert level.get("a", 9) is not None
    assert level.peek("b", 10) is None
    assert level.get("a", 10) is None
    assert "b" in dict.fromkeys(entry.key for entry in level._entries.values()), "peek takes nothing out"
    assert (level.stats().hits, level.stats().misses, level.stats().expired) == (1, 1, 1)


def test_a_put_replaces_the_value_and_its_size() -> None:
    """The account follows."""
    level: L1[str] = L1()
    level.put("a", "x", now_us=0, size_bytes=10_000, tags=("t",))
    before = level.used_bytes
    level.put("a", "y", now_us=0, size_bytes=10)
    entry = level.get("a", 0)

    assert entry is not None
    assert (entry.value, entry.tags) == ("y", ())
    assert level.used_bytes < before - 9_000
    assert len(level) == 1


def test_sizes_are_estimated_where_none_is_given() -> None:
    """Small and large bytes, other values, and keys of any script."""
    level: L1[object] = L1()
    base = level.used_bytes
    level.put("a", b"x" * 100, now_us=0)
    small = level.used_bytes - base
    level.put("b", b"x" * 10_000, now_us=0)
    large = level.used_bytes - base - small
    level.put("ключ" * 30, ["x" * 1_000] * 3, now_us=0)
    other = level.used_bytes - base - small - large

    assert 100 < small < 400
    assert 10_000 < large < 10_500
    assert 1_100 < other < 1_800


def test_deleting_says_whether_there_was_an_entry() -> None:
    """And takes it out."""
    level: L1[int] = L1()
    level.put("a", 1, now_us=0)

    assert level.delete("a", 0)
    assert not level.delete("a", 0)
    assert level.get("a", 0) is None


def test_keys_and_items_are_those_alive() -> None:
    """Expired ones are left out, whether or not they were taken out yet."""
    level: L1[int] = L1()
    level.put("a", 1, now_us=0, expires_us=10)
    level.put("b", 2, now_us=0)

    assert sorted(level.keys(9)) == ["a", "b"]
    assert level.keys(10) == ["b"]
    assert [(key, entry.value) for key, entry in level.items(10)] == [("b", 2)]
    assert len(level) == 2


@pytest.mark.parametrize("policy", Eviction)
def test_a_full_level_keeps_what_is_asked_for(policy: Eviction) -> None:
    """An entry that is asked for between all others outlives ten times as many entries as there is room for."""
    level: L1[int] = L1(100, policy=policy)
    level.put("hot", 1, now_us=0)
    for number in range(1_000):
        level.put(f"cold-{number}", number, now_us=0)
        assert level.get("hot", 0) is not None
        assert len(level) <= 100

    assert level.stats().evicted == 1_001 - len(level)


def test_a_level_of_one_entry_holds_the_last() -> None:
    """The smallest bound works."""
    level: L1[int] = L1(1)
    for number in range(10):
        assert level.put(f"k{number}", number, now_us=0)
        assert level.keys(0) == [f"k{number}"]


def test_expired_entries_go_before_any_other_at_the_warning_level() -> None:
    """Puts look for them, and nothing alive is evicted while there are some."""
    level = until(L1(max_bytes=BUDGET_BYTES), Pressure.WARNING)
    for number in range(2_500):
        assert level.put(f"new-{number}", number, now_us=10, size_bytes=10)
    stats = level.stats()

    assert stats.pressure is not Pressure.CRITICAL
    assert stats.evicted == 0
    assert stats.expired > 500


def test_at_the_critical_line_fills_are_refused_until_there_is_room_below_warning() -> None:
    """The line is not passed, refused puts make room, and then puts are taken again."""
    level = filled(L1(max_bytes=BUDGET_BYTES), 2_000)
    stats = level.stats()
    assert stats.refused > 0
    assert stats.used_bytes <= BUDGET_BYTES * 85 // 100
    until(level, Pressure.NORMAL)

    assert level.put("again", 1, now_us=0, size_bytes=1_000)


def test_the_first_put_past_the_critical_line_is_refused() -> None:
    """Pressure is critical from then on, and what the refused key had is gone: a newer value was to replace it."""
    level: L1[int] = L1(max_bytes=BUDGET_BYTES)
    level.put("a", 1, now_us=0, size_bytes=1_000)
    stored = [level.put(f"old-{number}", 1, now_us=0, size_bytes=5_000) for number in range(170)]

    assert level.pressure is Pressure.WARNING
    assert all(stored)
    assert not level.put("a", 2, now_us=0, size_bytes=60_000)
    assert level.get("a", 0) is None
    assert level.stats().refused == 1


def test_expired_entries_are_shed_before_live_ones() -> None:
    """At the critical level too."""
    level: L1[int] = L1(max_bytes=BUDGET_BYTES)
    for number in range(160):
        level.put(f"{number}", number, now_us=0, size_bytes=5_000, expires_us=10 if number % 2 else NEVER_US)
    assert not level.put("last", 0, now_us=10, size_bytes=150_000)
    level.reclaim(10, 10_000)
    stats = level.stats()

    assert stats.pressure is Pressure.NORMAL
    assert stats.expired > 0
    assert stats.evicted == 0


def test_a_value_too_large_for_the_budget_is_refused_without_harm_to_others() -> None:
    """Nothing is evicted for the sake of what could never stay."""
    level = filled(L1(max_bytes=BUDGET_BYTES), 100)

    assert not level.put("huge", 0, now_us=0, size_bytes=BUDGET_BYTES)
    assert not level.put("old-1", 0, now_us=0, size_bytes=BUDGET_BYTES)
    assert level.pressure is Pressure.NORMAL
    assert len(level) == 99


def test_clearing_forgets_at_once_and_gives_memory_back_in_steps() -> None:
    """The account keeps what is not given back yet."""
    level = filled(L1(max_bytes=BUDGET_BYTES), 500)
    full = level.used_bytes
    level.clear()
    level.clear()

    assert (len(level), level.keys(0)) == (0, [])
    assert level.used_bytes >= full
    assert level.reclaim(0, 300) == 300
    assert level.used_bytes < full // 2
    assert level.put("a", 1, now_us=0, size_bytes=10)
    assert level.reclaim(0, 300) == 72
    assert level.used_bytes < 20 * KIB


def test_reclaiming_takes_out_what_expired() -> None:
    """A round over all entries leaves none."""
    level = filled(L1(), 1_000, expires_us=10)
    level.put("alive", 1, now_us=0)
    freed = sum(level.reclaim(10, 300) for _ in range(12))

    assert freed == 1_000
    assert level.keys(10) == ["alive"]
    assert level.reclaim(10, 300) == 0


@pytest.mark.parametrize("policy", Eviction)
def test_deletes_leave_nothing_behind(policy: Eviction) -> None:
    """However often a key is put and deleted, the queues stay short."""
    level: L1[int] = L1(policy=policy)
    for number in range(20_000):
        level.put(f"k{number % 10}", number, now_us=0)
        level.delete(f"k{number % 10}", 0)

    assert level._order.structure_bytes() < 20 * KIB
    assert len(level._order.arrivals) < 500


@pytest.mark.parametrize("policy", Eviction)
def test_evictions_leave_nothing_behind(policy: Eviction) -> None:
    """However many entries pass through, the queues stay as long as the level is."""
    level: L1[int] = L1(1_000, policy=policy)
    for number in range(30_000):
        level.put(f"k{number}", number, now_us=0)

    assert level._order.structure_bytes() < 150 * KIB


def test_the_account_has_the_tables_in_it() -> None:
    """A dict that doubles is seen, within a sixteenth of growth."""
    level = filled(L1(), 50_000, size_bytes=0)
    entries = sum(entry.size_bytes for _, entry in level.items(0))

    assert level.used_bytes - entries == pytest.approx(level._order.structure_bytes(), rel=0.07)
