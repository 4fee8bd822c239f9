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

Call: 1 if a key comes several times 1, shapes 2, the shapes, an order for each key; all in one string, since
each argument costs the server, and each side, as much as a tenth of an order.
Shape: operation 1, equal 1, asks 1, then for each ask: mark 8, kind 1 (4: calendar; 64 more: its reserve is not kept),
requests 4, reserve 4, window 7, burst 4, [starts of four windows and the end of the last, 7 each].
Order: shape 2, then 4, 8, 8 (takes: times, least, lease; returns: epoch, number, window; else zeros), wants 8 each (a
reset: one that is 0).
Answers: one after another in one string, each by its first byte:

===  =========================================================================================================
0    takes that passed 4, number 8, epoch 4, then for each ask, signed: granted, before, counted after, room,
     wait, wait of those denied, spendable for, window, 8 each
1-3  refused (`Refusal`), and nothing else
128  one take of one limit: number 8, epoch 4, granted, before, room, wait, spendable for, window, 8 each
===  =========================================================================================================
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Final

from ratelimit_service.algorithms import calendar_window
from ratelimit_service.algorithms.limit import Algorithm
from ratelimit_service.quota.redis.twin import Answer, Refusal
from ratelimit_service.quota.redis.twin_state import mark_of
from ratelimit_service.quota.takes import Ask, CountedKey, Grant, Order, Refund, Reset, Return, Spend, Take

__all__ = ["Shapes", "group_pattern", "key_name", "key_of", "pack_call", "read_replies"]

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
_CALL: Final = struct.Struct("<BH")
_ASK: Final = struct.Struct("<8sBII7sI")
_ORDER: Final = struct.Struct("<HI3Q")
_MORE: Final = struct.Struct("<Q")
_LONG: Final = 7
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


def _sole_shape(ask: Ask, equal: bool, wall_us: int) -> bytes:
    """The shape of a take of one limit; remembered unless it depends on the time."""
    limit = ask.limit
    if limit.calendar is not None:
        return b"".join([bytes((1, equal, 1)), _ask_bytes(ask, wall_us)])
    key = (ask.identity, limit, ask.reserve, ask.lasting, equal)
    known = _SOLE_SHAPES.get(key)
    if known is None:
        if len(_SOLE_SHAPES) >= _MOST_SHAPES:
            _SOLE_SHAPES.clear()
        known = _SOLE_SHAPES[key] = b"".join([bytes((1, equal, 1)), _ask_bytes(ask, wall_us)])
    return known


_MOST_SHAPES: Final = 4_096
_SOLE_SHAPES: Final[dict[_ShapeKey, bytes]] = {}


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

    __slots__ = ("_indexes", "_latest", "_latest_equal", "_latest_index", "_wall_us", "packed")

    def __init__(self, wall_us: int) -> None:
        self._wall_us = wall_us
        self._indexes: dict[_ShapeKey | bytes, int] = {}
        self._latest: Ask | None = None
        self._latest_equal = True
        self._latest_index = 0
        self.packed: list[bytes] = []

    def index(self, order: Order) -> int:
        """The number of an order's shape."""
        asks = _asks(order)
        equal = not isinstance(order, Take) or order.equal
        # An identity fixes algorithm and window, so these say all that `_ask_bytes` needs.
        parts = ((ask.identity, ask.limit.requests, ask.limit.burst, ask.reserve, ask.lasting) for ask in asks)
        key = (type(order), equal, *parts)
        index = self._indexes.get(key)
        if index is None:
            index = self._indexes[key] = len(self.packed)
            head = bytes((_OPERATIONS[type(order)], equal, len(asks)))
            self.packed.append(b"".join([head, *(_ask_bytes(ask, self._wall_us) for ask in asks)]))
        return index

    def index_of_sole(self, order: Take) -> int:
        """The same for a take of one limit, which is that of the order before it more often than not."""
        (ask,) = order.asks
        if ask != self._latest or order.equal is not self._latest_equal:
            shape = _sole_shape(ask, order.equal, self._wall_us)
            index = self._indexes.get(shape)
            if index is None:
                index = self._indexes[shape] = len(self.packed)
                self.packed.append(shape)
            self._latest_index = index
            self._latest, self._latest_equal = ask, order.equal
        return self._latest_index


def pack_order(shapes: Shapes, order: Order, times: int = 1) -> bytes:
    """One order as the script reads it; `times` takes of all or nothing (`least` is what is wanted) come as one."""
    match order:
        case Take(asks=(ask,)):
            return _ORDER.pack(shapes.index_of_sole(order), times, order.least, order.lease_us, ask.want)
        case Take():
            head = (shapes.index(order), times, order.least, order.lease_us)
        case Return():
            head = (shapes.index(order), order.epoch, order.number, order.window)
        case _:
            head = (shapes.index(order), 0, 0, 0)
    first, *more = [ask.want for ask in _asks(order)] or [0]
    return b"".join([_ORDER.pack(*head, first), *map(_MORE.pack, more)])


def pack_call(names: Sequence[bytes], orders: Iterable[tuple[Order, int]], wall_us: int) -> bytes:
    """The argument of a call that carries out orders, each so many times, on the keys of that name.

    `wall_us`: The store's time as the caller takes it to be: calendar windows are listed around it.
    """
    shapes = Shapes(wall_us)
    packed = [pack_order(shapes, order, times) for order, times in orders]
    head = _CALL.pack(len(set(names)) < len(names), len(shapes.packed))
    return b"".join([head, *shapes.packed, *packed])


# Answers.

_HEAD: Final = struct.Struct("<BIQI")
_FACTS: Final = struct.Struct("<8q")
_ONE: Final = struct.Struct("<BQI6q")
_IS_ONE: Final = 128


def read_replies(packed: bytes, orders: Iterable[tuple[Order, int]]) -> Iterator[Sequence[Answer]]:
    """What the script said of each order, which was sent so many times: an answer for each time, in order.

    Takes that passed are all told how long it is until the budget is full after the last of them. On a bucket they are
    tested and charged as one take of their sum, whose lease puts the arrival time off once and not for each of them.
    """
    at = 0
    for order, times in orders:
        kind = packed[at]
        if kind == _IS_ONE:
            _, number, epoch, granted, before, room, wait_us, spend_us, window = _ONE.unpack_from(packed, at)
            at += _ONE.size
            yield ((Grant(granted, max(0, room), before, wait_us, spend_us, number, epoch, window),),)
        elif kind:
            at += 1
            yield (Refusal(kind),) * times
        else:
            facts_at = at + _HEAD.size
            at = facts_at + _FACTS.size * max(1, len(_asks(order)))
            yield _read_times(packed, facts_at, at, times)


def _read_times(packed: bytes, facts_at: int, end: int, times: int) -> Sequence[Answer]:
    _, passed, number, epoch = _HEAD.unpack_from(packed, facts_at - _HEAD.size)
    facts = list(_FACTS.iter_unpack(memoryview(packed)[facts_at:end]))
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
