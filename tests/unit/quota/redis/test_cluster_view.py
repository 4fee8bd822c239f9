"""What a member says of its cluster, slots and redirections, byte for byte."""

from __future__ import annotations

import pytest

from ratelimit_service.quota.redis.boot import boot_began_us, boot_key
from ratelimit_service.quota.redis.cluster import SlotRange, read_view
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.redis_server.address_model import Endpoint
from ratelimit_service.redis_server.slots import SLOTS, slot_of, tag_within

ASKED = Endpoint("asked", 7)
INFO = b"cluster_state:ok\r\ncluster_current_epoch:6\r\n"


def server(host: bytes | None, port: int) -> Reply:
    return [host, port, b"id"]


def test_ranges_name_masters_and_members_name_all() -> None:
    """The first server of a range is its master."""
    slots: Reply = [
        [0, 99, server(b"a", 1), server(b"b", 2)],
        [100, 16_383, server(b"c", 3)],
    ]
    view = read_view(INFO, slots, ASKED)

    assert (view.works, view.epoch) == (True, 6)
    assert view.ranges == (SlotRange(0, 99, Endpoint("a", 1)), SlotRange(100, 16_383, Endpoint("c", 3)))
    assert view.members == (Endpoint("a", 1), Endpoint("b", 2), Endpoint("c", 3))


@pytest.mark.parametrize("host", [None, b""])
def test_a_member_without_a_host_is_where_it_was_asked(host: bytes | None) -> None:
    """Redis leaves its own host out where it does not know it."""
    view = read_view(INFO, [[0, 1, server(host, 9)]], ASKED)

    assert view.ranges == (SlotRange(0, 1, Endpoint("asked", 9)),)


@pytest.mark.parametrize(
    "slots",
    [None, b"x", [], [b"x"], [[0, 1]], [[0, 1, server(b"?", 1)]], [[0, 1, [b"a"]]], [[b"0", 1, server(b"a", 1)]]],
)
def test_what_makes_no_sense_is_no_range(slots: Reply) -> None:
    """An answer that is cut or foreign changes nothing."""
    assert read_view(INFO, slots, ASKED).ranges == ()


def test_a_member_that_says_nothing_does_not_work() -> None:
    """Neither state nor epoch."""
    view = read_view(None, [], ASKED)

    assert (view.works, view.epoch) == (False, 0)


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 0x31C3),
        (b"foo", 12_182),
        (b"{user1000}.following", slot_of(b"user1000")),
        (b"foo{}{bar}", slot_of(b"foo{}{bar}")),
        (b"foo{{bar}}zap", slot_of(b"{bar")),
        (b"foo{bar}{zap}", slot_of(b"bar")),
        (b"foo{bar", slot_of(b"foo{bar")),
    ],
)
def test_slots_are_those_of_the_specification(key: bytes, slot: int) -> None:
    """The test vector of appendix A, and the rules of hash tags."""
    assert slot_of(key) == slot


def test_an_empty_tag_is_no_tag() -> None:
    """`foo{}{bar}` is hashed whole."""
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")


@pytest.mark.parametrize("slot", [0, 1, 8_191, SLOTS - 1])
def test_every_slot_has_a_tag(slot: int) -> None:
    """A node with a single slot has room for its boot key."""
    tag = tag_within({slot})

    assert tag is not None
    assert slot_of(boot_key(b"any prefix", tag)) == slot


def test_no_slot_has_no_tag() -> None:
    """A node without slots has no place for a boot key."""
    assert tag_within(set()) is None


def test_a_boot_value_says_when_the_memory_began() -> None:
    """A foreign one says nothing."""
    assert boot_began_us(b"ab:cd:1700000000000001") == 1_700_000_000_000_001
    assert boot_began_us(b"something") == 0
