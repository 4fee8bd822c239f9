"""A real Redis under the scripts, asked synchronously, with the time as an argument: what the twin is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from ratelimit_service.quota.redis.packing import key_name, key_of, pack_call, read_replies
from ratelimit_service.quota.redis.scripts import ORDERS
from ratelimit_service.quota.redis.state_bytes import read_state
from ratelimit_service.quota.redis.twin import Answer, Refusal
from ratelimit_service.quota.redis.twin_state import State
from ratelimit_service.quota.takes import CountedKey, Order

PREFIX = b"tg:"


class ScriptedStore:
    """Executes orders in Redis as `SharedState` does in Python."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._run = client.register_script(ORDERS.source)

    def forget_all(self) -> None:
        self.client.flushall()

    def execute(self, orders: Sequence[Order], now_us: int, listed_us: int | None = None) -> list[Answer]:
        return [answers[0] for answers in self.execute_times([(order, 1) for order in orders], now_us, listed_us)]

    def execute_times(
        self, orders: Sequence[tuple[Order, int]], now_us: int, listed_us: int | None = None
    ) -> list[Sequence[Answer]]:
        names = [key_name(PREFIX, order.where) for order, _ in orders]
        asked = pack_call(names, orders, now_us if listed_us is None else listed_us)
        told_us, replies = self._run(names, [now_us, asked])
        assert told_us == now_us
        return list(read_replies(replies, orders))

    def server_time_us(self) -> int:
        """The time that a call without orders takes from the server."""
        now_us: int = self._run([], ["", pack_call([], [], 0)])[0]
        return now_us

    def states(self) -> dict[bytes, State | Refusal]:
        """State by the counted values; the groups of a schedule differ in them."""
        found: dict[bytes, State | Refusal] = {}
        for name in self.client.keys(PREFIX + b"*"):
            raw = self.client.get(name)
            assert isinstance(name, bytes)
            assert isinstance(raw, bytes)
            found[name] = read_state(raw)
        return found


def named(keys: dict[CountedKey, State]) -> dict[bytes, State]:
    """The states of a twin under the names that they have in Redis."""
    names = {key_name(PREFIX, where): state for where, state in keys.items()}
    assert all(key_of(PREFIX, key_name(PREFIX, where)) == where.key for where in keys)
    return names
