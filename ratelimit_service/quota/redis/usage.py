"""Live use of counters, read from the states of counted keys (`Store.usage`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ratelimit_service.algorithms.limit import LimitSettings
from ratelimit_service.quota.redis.twin import Refusal, apply
from ratelimit_service.quota.redis.twin_state import State, mark_of
from ratelimit_service.quota.store import Usage
from ratelimit_service.quota.takes import Ask, CountedKey, Take

__all__ = ["PAGE_COUNTERS", "usages"]

PAGE_COUNTERS: Final = 100
"""Counters on a page of `usage`."""


def usages(where: CountedKey, state: State, limits: Mapping[bytes, LimitSettings], now_us: int) -> Iterator[Usage]:
    """What is used of each of some limits of one counted key, what replicas hold in hand included.

    Args:
        where: The counted key.
        state: What the store has under it.
        limits: The limits of its rule, by identity.
        now_us: The store's time.
    """
    for identity, settings in limits.items():
        if state.entry(mark_of(identity)) is None:
            continue
        _, answer = apply(state, Take(where, (Ask(identity, settings.limit, 0),), 0, 0), now_us)
        if isinstance(answer, Refusal) or not answer[0].before:
            continue
        said = answer[0]
        yield Usage(identity, where.key, said.before, said.remaining, said.wait_us)
