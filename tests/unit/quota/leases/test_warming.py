"""Hot keys over a restart: leased again at once, and nothing else of what was held."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.quota.leases.warming import HotKey
from ratelimit_service.quota.redis.warm_file import LASTS_US, MOST_HOT_KEYS, read_hot_keys, write_hot_keys
from ratelimit_service.quota.store import Charge, Source
from support.replicas import Rig, SharedStore
from support.store_harness import charge, fixed, in_force

WALL_US = 1_700_000_000_000_000


@pytest.fixture
def rig() -> Rig:
    """A store, a clock, no replicas yet."""
    return Rig()


HOT = [HotKey(b"id", b"\x03ann", 0.5), HotKey(b"id", b"\xff\x00", 0.0)]


def used(rig: Rig, asked: Charge, times: int) -> SharedStore:
    """A replica that leases this key."""
    replica = rig.replica()
    replica.apply(in_force(asked))
    for _ in range(times):
        rig.ask(replica, asked)
        rig.advance(1_000, replica)
    return replica


def hottest(replica: SharedStore, most: int = 10) -> list[HotKey]:
    """What is remembered in the end."""
    return [[], *replica.warmer.hottest(most)][-1]


def test_a_key_that_was_hot_is_leased_before_it_is_asked_for(rig: Rig) -> None:
    """By a replica that begins, from what its predecessor remembered; the store grants it like any take."""
    asked = charge(fixed(1_000))
    before = used(rig, asked, 50)
    hot = hottest(before)
    before.release()
    rig.scheduler.run()
    fresh = rig.replica()
    fresh.apply(in_force(asked))
    fresh.warmer.warm(hot, in_force(asked))
    rig.advance(5_000, fresh)
    outcomes = rig.ask(fresh, asked)

    assert [each.key for each in hot] == [asked.key]
    assert outcomes[0].source is Source.LEASE
    assert fresh.stats().granted > 1


def test_nothing_that_was_held_is_taken_for_granted(rig: Rig) -> None:
    """After a crash the hits of its leases stay counted, and what is warmed comes on top of them."""
    asked = charge(fixed(1_000))
    crashed = used(rig, asked, 50)
    hot, held = hottest(crashed), crashed.stats().granted
    fresh = rig.replica()
    fresh.apply(in_force(asked))
    nothing = fresh.stats().granted
    fresh.warmer.warm(hot, in_force(asked))
    rig.advance(5_000, fresh)
    (state,) = rig.state.keys.values()

    assert nothing == 0
    assert state.entries[0].count == held + fresh.stats().granted


def test_what_is_not_in_force_or_exact_is_passed_over(rig: Rig) -> None:
    """Limits change over a restart too."""
    small = charge(fixed(5))
    replica = rig.replica()
    replica.apply(in_force(small))
    replica.warmer.warm([HotKey(small.identity, small.key, 1.0), HotKey(b"gone", b"key", 1.0)], in_force(small))
    rig.advance(10_000, replica)

    assert replica.orders.sent == []
    assert hottest(replica) == []


def test_only_so_many_are_remembered_the_hottest_first(rig: Rig) -> None:
    """By their rates."""
    replica = rig.replica()
    often, seldom = charge(fixed(1_000), key=b"often"), charge(fixed(1_000), key=b"seldom")
    replica.apply(in_force(often))
    for nth in range(60):
        rig.ask(replica, often)
        if nth % 20 == 0:
            rig.ask(replica, seldom)
        rig.advance(1_000, replica)

    assert [each.key for each in hottest(replica)] == [b"often", b"seldom"]
    assert [each.key for each in hottest(replica, most=1)] == [b"often"]


def test_a_file_gives_back_what_it_was_given(tmp_path: Path) -> None:
    """Only its owner may read it: it holds counted values."""
    path = tmp_path / "warm"
    write_hot_keys(path, HOT, WALL_US)
    write_hot_keys(path, HOT * MOST_HOT_KEYS, WALL_US)

    assert read_hot_keys(path, WALL_US + 1)[:2] == HOT
    assert len(read_hot_keys(path, WALL_US)) == MOST_HOT_KEYS
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["warm"]


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93\x02\x00\x90", b"\x93\x01\xc0\x90"])
def test_a_file_of_something_else_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """Cut off, foreign, of another form."""
    path = tmp_path / "warm"
    path.write_bytes(content)

    assert read_hot_keys(path, WALL_US) == []
    assert read_hot_keys(tmp_path / "gone", WALL_US) == []


@pytest.mark.parametrize("age_us", [LASTS_US, -1])
def test_an_old_file_says_nothing(tmp_path: Path, age_us: int) -> None:
    """Nor does one of the future: the clock was set."""
    path = tmp_path / "warm"
    write_hot_keys(path, HOT, WALL_US)

    assert read_hot_keys(path, WALL_US + age_us) == []


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its place is taken by a folder."""
    path = tmp_path / "warm"
    (path / "x").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_hot_keys(path, HOT, WALL_US)

    assert [each.name for each in tmp_path.iterdir()] == ["warm"]
