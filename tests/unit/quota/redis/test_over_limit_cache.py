"""Keys that are over their limit are remembered until their time, in bounded memory."""

from __future__ import annotations

from ratelimit_service.quota.redis.over_limit_cache import OverLimitCache


def test_a_key_is_held_until_its_time() -> None:
    """Not at it."""
    cache = OverLimitCache(10_000)
    cache.add(b"key", 100)

    assert [cache.holds(b"key", at) for at in (0, 99, 100)] == [True, True, False]
    assert not cache.holds(b"other", 0)


def test_the_oldest_leaves_a_full_cache() -> None:
    """A key that is added again is the youngest, and counts once."""
    cache = OverLimitCache(700)
    for key in (b"a", b"b", b"c", b"a", b"d"):
        cache.add(key, 100)

    assert [cache.holds(key, 0) for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert (len(cache), cache.bytes_used) == (3, 603)


def test_no_room_remembers_nothing() -> None:
    """Size 0 is off, and a key that is larger than the cache is passed over."""
    off, small = OverLimitCache(0), OverLimitCache(250)
    off.add(b"key", 100)
    small.add(b"k" * 100, 100)

    assert (len(off), len(small)) == (0, 0)
