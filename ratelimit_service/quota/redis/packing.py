"""Bytes between a replica and the scripts: names of keys, orders, answers and states.

Integers are little-endian and unsigned unless said otherwise; `lua/orders.lua` reads and writes the same.
In the tables a number is a field's length in bytes.

Name of a counted key: prefix, `{`, 16 characters that are a digest of the rule, the counted values, `}`. What is in the
braces chooses the slot of a cluster, so the keys of one rule are spread over all slots.

State: form 1 (0xb1), epoch 4, number 7, then for each limit: mark 8, kind 1, length of the rest 2, until 7, [reserve 4,
its time 7: where kind has its highest bit], and by kind:

==  ==============  ==========================================================
1   fixed window    start 7, count 6
2   sliding window  part reached 7, sum 6, then for each part: its number modulo 65536 2, count 6
3   bucket          at 7, backlog 7, interval 6, shift 1
==  ==============  ==========================================================

A form from 0xb2 to 0xbf is a newer release's: it is left alone and the order refused. Each release reads the forms of
the one before it, and writes its own only when no replica is left that cannot read it.

Shape: operation 1, equal 1, asks 1, then for each ask: mark 8, kind 1 (4: calendar; 64 more: its reserve is not kept),
requests 4, reserve 4, window 7, burst 4, [starts of four windows and the end of the last, 7 each].
Order: shape 2, then 4, 7, 7 (takes: times, least, lease; returns: epoch, number, window; else zeros), wants 7 each (a
reset: one that is 0).
Answer: refusal 1 (0: none), and nothing else if there is one; takes that passed 4, number 7, epoch 4, then for each
ask, signed: granted, before, counted after, room, wait, wait of those denied, spendable for, window, 8 each.
Answer to one take of one limit: refusal 1, number 7, epoch 4, granted, before, room, wait, spendable for, window, 8
each.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from ratelimit_service.algorithms import calendar_window
from ratelimit_service.algorithms.limit import Algorithm
from ratelimit_service.quota.redis.twin import Answer, Refusal
from ratelimit_service.quota.redis.twin_state import mark_of
from ratelimit_service.quota.takes import Ask, CountedKey, Grant, Order, Refund, Reset, Return, Spend, Take

__all__ = ["Shapes", "group_pattern", "key_name", "key_of", "pack_order", "read_answer"]

_GROUP_CHARS: Final = 16


@functools.lru_cache(maxsize=65_536)
def _group_name(group: bytes) -> bytes:
    return base64.urlsafe_b64encode(blake2b(group, digest_size=12, person=b"tidegate-rule").digest())


def key_name(prefix: bytes, where: CountedKey) -> bytes:
    """The key in Redis that holds a counted key."""
    return b"%b{%b%b}" % (prefix, _group_name(where.group), where.key)


def group_pattern(prefix: bytes, group: bytes) -> bytes:
    """A glob for SCAN that finds the counted keys of one rule."""
    escaped = b"".join(b"\\" + bytes((char,)) if char in b"*?[]\\^" else bytes((char,)) for char in prefix)
    return b"%b{%b*" % (escaped, _group_name(group))


def key_of(prefix: bytes, name: bytes) -> bytes:
    """The counted values (`CountedKey.key`) that a name of `key_name` was made of."""
    return name[len(prefix) + 1 + _GROUP_CHARS : -1]


# Orders.

_OPERATIONS: Final[dict[type[Order], int]] = {Take: 1, Spend: 2, Refund: 3, Return: 4, Reset: 5}
_KINDS: Final = {Algorithm.FIXED_WINDOW: 1, Algorithm.SLIDING_WINDOW: 2, Algorithm.TOKEN_BUCKET: 3}
_CALENDAR: Final = 4
_PASSING: Final = 64
_ASK: Final = struct.Struct("<8sBII7sI")
_ORDER: Final = struct.Struct("<HI7s7s")
_LONG: Final = 7
_NO_FIELD: Final = bytes(_LONG)
_ShapeKey = tuple[object, ...]


def _long(number: int) -> bytes:
    return number.to_bytes(_LONG, "little")


def _asks(order: Order) -> tuple[Ask, ...]:
    match order:
        case Return():
            return (order.ask,)
        case Reset():
            return ()
        case _:
            return order.asks


def _ask_bytes(ask: Ask, wall_us: int) -> bytes:
    limit = ask.limit
    kind = _KINDS[limit.algorithm] if limit.calendar is None else _CALENDAR
    # A reserve above the limit leaves as little as one that is all of it.
    reserve = min(ask.reserve, 2**32 - 1)
    kind += 0 if ask.lasting else _PASSING
    fixed = _ASK.pack(mark_of(ask.identity), kind, limit.requests, reserve, _long(limit.window_us), limit.burst)
    if limit.calendar is None:
        return fixed
    windows = calendar_window.windows_around(limit.calendar, wall_us)
    return b"".join([fixed, *(_long(window.start_us) for window in windows), _long(windows[-1].end_us)])


class Shapes:
    """The shapes of one call: what many orders have in common is sent, and read, once.

    Args:
        wall_us: The store's time as the caller takes it to be: calendar windows are listed around it.

    Attributes:
        packed: The shapes, in the order in which the script numbers them.
    """

    __slots__ = ("_indexes", "_wall_us", "packed")

    def __init__(self, wall_us: int) -> None:
        self._wall_us = wall_us
        self._indexes: dict[_ShapeKey, int] = {}
        self.packed: list[bytes] = []

    def index(self, order: Order) -> int:
        """The number of an order's shape."""
        asks = _asks(order)
        equal = not isinstance(order, Take) or order.equal
        # An identity fixes algorithm and window, so these say all that `_ask_bytes` needs.
        if len(asks) == 1:
            ask = asks[0]
            reserve = ask.reserve if ask.lasting else -ask.reserve
            key: _ShapeKey = (type(order), equal, ask.identity, ask.limit.requests, ask.limit.burst, reserve)
        else:
            parts = ((ask.identity, ask.limit.requests, ask.limit.burst, ask.reserve, ask.lasting) for ask in asks)
            key = (type(order), equal, *parts)
        index = self._indexes.get(key)
        if index is None:
            index = self._indexes[key] = len(self.packed)
            head = bytes((_OPERATIONS[type(order)], equal, len(asks)))
            self.packed.append(b"".join([head, *(_ask_bytes(ask, self._wall_us) for ask in asks)]))
        return index


def pack_order(shapes: Shapes, order: Order, times: int = 1) -> bytes:
    """One order as the script reads it; `times` takes of all or nothing (`least` is what is wanted) come as one."""
    index = shapes.index(order)
    match order:
        case Take(least=least, lease_us=lease_us, asks=asks):
            head = _ORDER.pack(index, times, _long(least), _long(lease_us))
            if len(asks) == 1:
                return head + _long(asks[0].want)
        case Return():
            head = _ORDER.pack(index, order.epoch, _long(order.number), _long(order.window))
        case _:
            head = _ORDER.pack(index, 0, _NO_FIELD, _NO_FIELD)
    return b"".join([head, *(_long(ask.want) for ask in _asks(order))]) if _asks(order) else head + _NO_FIELD


# Answers.

_HEAD: Final = struct.Struct("<BI7sI")
_FACTS: Final = struct.Struct("<8q")
_ONE: Final = struct.Struct("<B7sI6q")


def read_answer(packed: bytes) -> Answer:
    """What the script said of one order that was sent once."""
    if len(packed) == _ONE.size:
        _, raw_number, epoch, granted, before, room, wait_us, spend_us, window = _ONE.unpack(packed)
        number = int.from_bytes(raw_number, "little")
        return (Grant(granted, max(0, room), before, wait_us, spend_us, number, epoch, window),)
    if len(packed) == 1:
        return Refusal(packed[0])
    return read_answers(packed, 1)[0]


def read_answers(packed: bytes, times: int) -> Sequence[Answer]:
    """What the script said of `times` takes that were sent as one: an answer for each, in order.

    Those that passed are all told how long it is until the budget is full after the last of them. On a bucket they are
    tested and charged as one take of their sum, whose lease puts the arrival time off once and not for each of them.
    """
    if len(packed) == _ONE.size:
        return [read_answer(packed)]
    if len(packed) == 1:
        return (Refusal(packed[0]),) * times
    _, passed, raw_number, epoch = _HEAD.unpack_from(packed)
    number = int.from_bytes(raw_number, "little")
    facts = list(_FACTS.iter_unpack(memoryview(packed)[_HEAD.size :]))
    answers = []
    for nth in range(1, times + 1):
        later = max(0, passed - nth)
        grants = []
        for granted, before, after, room, wait, denied_wait, spend, window in facts:
            is_granted = nth <= passed and granted > 0
            grants.append(
                Grant(
                    granted if is_granted else 0,
                    max(0, room + later * granted),
                    before if nth == 1 else after - max(0, passed - nth + 1) * granted,
                    wait if is_granted else denied_wait,
                    spend if is_granted else 0,
                    number - later,
                    epoch,
                    window,
                )
            )
        answers.append(tuple(grants))
    return answers
