"""Answers that come later, each by a callback: wait for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

__all__ = ["Answers"]

T = TypeVar("T")


class Answers(Generic[T]):
    """So many answers. Whoever waits for them may be cancelled: then they go nowhere."""

    def __init__(self, count: int) -> None:
        self._answers: list[T | None] = [None] * count
        self._missing = count
        self._whole: asyncio.Future[None] | None = None

    def take_in(self, index: int, answer: T) -> None:
        """One of the answers, once."""
        self._answers[index] = answer
        self._missing -= 1
        if not self._missing and self._whole is not None and not self._whole.done():
            self._whole.set_result(None)

    async def all(self) -> Sequence[T]:
        """Every answer, in order; does not wait where all are there."""
        if self._missing:
            self._whole = asyncio.get_running_loop().create_future()
            await self._whole
        return self._answers  # type: ignore[return-value]  # none is missing
