"""Waiting for an event, but not for ever."""

from __future__ import annotations

import asyncio

__all__ = ["is_set_within"]


async def is_set_within(event: asyncio.Event, duration_us: int) -> bool:
    """Wait for an event, or until a duration has passed; returns whether the event came."""
    try:
        async with asyncio.timeout(max(0, duration_us) / 1_000_000):
            return await event.wait()
    except TimeoutError:
        return False
