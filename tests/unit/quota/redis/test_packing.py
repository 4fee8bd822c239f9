"""Bytes between a replica and the scripts: names, orders and states."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.quota.redis.packing import (
    Shapes,
    group_pattern,
    key_name,
    key_of,
    pack_call,
    pack_order,
    read_replies,
)
from ratelimit_service.quota.redis.scripts import ORDERS
from ratelimit_service.quota.redis.state_bytes import read_state
from ratelimit_service.quota.redis.twin import Refusal
from ratelimit_service.quota.takes import CountedKey, Take
from ratelimit_service.redis_server.slots import slot_of
from support.counted_keys import BUCKET_LIMIT, DAYS, FIXED_LIMIT, SLIDING_LIMIT, WHERE, ask, take
from support.strategies import START_US

prefixes = st.sampled_from([b"", b"tg:", b"a*[b]?:", b"back\\slash"])
names = st.builds(CountedKey, st.binary(max_size=8), st.binary(max_size=8))


@given(prefix=prefixes, where=names)
def test_name_gives_the_counted_values_back(prefix: bytes, where: CountedKey) -> None:
    """Any bytes may be counted by, braces included."""
    assert key_of(prefix, key_name(prefix, where)) == where.key


@given(prefix=prefixes, one=names, other=names)
def test_names_meet_only_if_the_keys_are_the_same(prefix: bytes, one: CountedKey, other: CountedKey) -> None:
    """Two counted keys never share a key in Redis."""
    assert (key_name(prefix, one) == key_name(prefix, other)) == (one == other)


@given(where=names, other=names)
def test_pattern_finds_the_keys_of_a_rule(where: CountedKey, other: CountedKey) -> None:
    """And those of no other; a prefix may hold characters that mean something in a pattern."""
    pattern = group_pattern(b"tg:", where.group).decode("latin-1")
    found = fnmatch.fnmatchcase(key_name(b"tg:", other).decode("latin-1"), pattern)

    assert found == (where.group == other.group)
    assert group_pattern(b"a*[b]?", b"").startswith(rb"a\*\[b\]\?{")


def test_keys_of_one_rule_are_spread_over_the_slots() -> None:
    """The hash tag is the whole of rule and values: no rule is one hot shard."""
    slots = {slot_of(key_name(b"tg:", CountedKey(b"rule", b"\x04%04d" % number))) for number in range(1_000)}

    assert len(slots) > 900


def test_orders_with_the_same_limits_share_a_shape() -> None:
    """However many hits they ask for, and for however long; other numbers, reserves or operations are another one."""
    shapes = Shapes(START_US)
    for order in (take(FIXED_LIMIT, 1), take(FIXED_LIMIT, 9, lease_us=5), take(FIXED_LIMIT, reserve=1), take(DAYS)):
        pack_order(shapes, order)
    pack_order(shapes, Take(WHERE, (ask(FIXED_LIMIT), ask(SLIDING_LIMIT)), 1, 0))
    pack_order(shapes, Take(WHERE, (ask(FIXED_LIMIT), ask(SLIDING_LIMIT)), 1, 0, equal=False))

    assert len(shapes.packed) == 5


def test_an_absurd_reserve_is_all_of_the_limit() -> None:
    """It has four bytes, as a limit has."""
    shapes = Shapes(START_US)
    pack_order(shapes, take(BUCKET_LIMIT, reserve=2**40))
    pack_order(shapes, take(BUCKET_LIMIT, reserve=2**32 - 1))

    assert len(shapes.packed) == 1


@pytest.mark.parametrize("refusal", list(Refusal))
def test_a_refusal_is_one_byte(refusal: Refusal) -> None:
    """Its number is the enumeration's."""
    assert list(read_replies(bytes((refusal, refusal)), [(take(FIXED_LIMIT), 2), (take(DAYS), 1)])) == [
        (refusal, refusal),
        (refusal,),
    ]


def test_a_call_says_whether_a_key_comes_several_times() -> None:
    """Then the script reads it anew for each order; otherwise it reads all keys at once."""
    asked = [(take(FIXED_LIMIT), 1), (take(SLIDING_LIMIT), 1)]

    assert pack_call([b"a", b"b"], asked, START_US)[0] == 0
    assert pack_call([b"a", b"a"], asked, START_US)[0] == 1


@pytest.mark.parametrize(
    ("raw", "refusal"),
    [
        (b"", Refusal.DAMAGED),
        (b"17", Refusal.DAMAGED),
        (b"x" * 43, Refusal.DAMAGED),
        (b"\xb1" + bytes(11) + b"x", Refusal.DAMAGED),
        (b"\xb1" + bytes(11) + bytes(8) + b"\x01" + b"\x0d\x00" + bytes(7) + bytes(12), Refusal.DAMAGED),
        (b"\xb1" + bytes(11) + bytes(8) + b"\x09" + b"\x00\x00" + bytes(7), Refusal.DAMAGED),
        (b"\xb2" + bytes(11), Refusal.NEWER),
        (b"\xbf" + bytes(60), Refusal.NEWER),
        (b"\xc0" + bytes(60), Refusal.DAMAGED),
    ],
)
def test_bytes_that_are_no_state_are_named_as_what_they_are(raw: bytes, refusal: Refusal) -> None:
    """A listing passes them over."""
    assert read_state(raw) is refusal


def test_script_is_one_text_of_all_files() -> None:
    """Named by its digest, and free of tabs and of what only one Redis version knows."""
    assert len(ORDERS.sha1) == 40
    assert all(law in ORDERS.source for law in (b"take_fixed", b"take_sliding", b"take_bucket", b"make_any"))
    assert b"\t" not in ORDERS.source
