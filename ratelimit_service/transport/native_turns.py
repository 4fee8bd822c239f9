"""How much of a client is read at one go, and whose turn is next.

Work is paced by time and not by bytes: a header bomb costs a hundred times what a call of the same length does. Who
fills what it is given has more to say and waits for a turn, and in one round of the loop one such client has its turn:
however many there are, a client that says little waits for one slice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

SLICE_US: Final = 300
"""What one read should take at the most; twice that, when it costs more than the one before."""
FIRST_BYTES: Final = 4_096
LEAST_BYTES: Final = 1_024
MOST_BYTES: Final = 32_768


def next_read_bytes(read_bytes: int, spent_us: int) -> int:
    """How much to read next of a client that filled `read_bytes` and took `spent_us`: what will take a slice.

    At most twice as much as before, for what comes next may cost more.
    """
    fitting = read_bytes * SLICE_US // max(1, spent_us)
    return max(LEAST_BYTES, min(fitting, 2 * read_bytes, MOST_BYTES))


class Turns:
    """Clients that wait for a turn, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[object, Callable[[], None]] = {}

    def wait(self, client: object, read_on: Callable[[], None]) -> None:
        """Call `read_on` when it is this client's turn; one that waits already keeps its place."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        self._waiting.setdefault(client, read_on)

    def forget(self, client: object) -> None:
        """The client has ended."""
        self._waiting.pop(client, None)

    def _next(self) -> None:
        client = next(iter(self._waiting), None)
        if client is None:
            return
        read_on = self._waiting.pop(client)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        read_on()
