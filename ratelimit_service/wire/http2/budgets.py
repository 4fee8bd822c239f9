"""How much of each cheap-to-send, costly-to-serve thing a peer may do in a second.

Envoy is one connection with all of its users on it: it resets streams whenever they leave and whenever
its own timeout of 20 ms strikes. Resets of calls that were answered are therefore free, and the budget
for the others is ten times the streams that may be open, each second, plus the calls answered (DECISIONS 27).
A stream that we reset because the peer broke a rule on it costs us the same, so it counts as one that the peer
reset (CVE-2025-8671).
"""

from __future__ import annotations

import enum
from typing import Final

SECOND_US: Final = 1_000_000


class Abuse(enum.Enum):
    """What a connection was closed for; the label of `tidegate_connection_abuse_total`."""

    RAPID_RESET = "rapid_reset"
    SETTINGS = "settings_flood"
    PING = "ping_flood"
    PRIORITY = "priority_flood"
    WINDOW_UPDATE = "window_update_flood"
    EMPTY_DATA = "empty_data_flood"
    UNKNOWN_FRAME = "unknown_frame_flood"
    HEADER_BLOCK = "header_block"
    STREAMS = "too_many_streams"
    STALLED = "stalled"
    SLOW_READER = "slow_reader"
    MEMORY = "memory"


PER_SECOND: Final[dict[Abuse, int]] = {
    Abuse.SETTINGS: 100,
    Abuse.PING: 1_000,
    Abuse.PRIORITY: 2_000,
    Abuse.WINDOW_UPDATE: 1_000,
    Abuse.EMPTY_DATA: 1_000,
    Abuse.UNKNOWN_FRAME: 1_000,
    # Header lists that are larger than we said we take.
    Abuse.HEADER_BLOCK: 100,
    # Streams that are opened although the peer knows that no more are allowed.
    Abuse.STREAMS: 1_000,
}
"""What a connection may do in a second for nothing; each call answered allows one reset and two WINDOW_UPDATE more."""


class Budgets:
    """Counts of one connection in the current second.

    A second begins with the first count after the last one ended; counts start anew then, so a burst across
    an edge may reach twice the budget.
    """

    __slots__ = ("_answered", "_counts", "_ends_us", "_resets_per_s")

    def __init__(self, most_streams: int) -> None:
        self._resets_per_s = 10 * most_streams
        self._counts: dict[Abuse, int] = {}
        self._answered = 0
        self._ends_us = 0

    def spend(self, what: Abuse, now_us: int, answered: int) -> bool:
        """Count one; False: the budget is spent and the peer is abusive.

        Args:
            what: The thing done.
            now_us: Any monotonic time.
            answered: Calls answered on this connection so far.
        """
        if now_us >= self._ends_us:
            self._ends_us = now_us + SECOND_US
            self._counts.clear()
            self._answered = answered
        count = self._counts[what] = self._counts.get(what, 0) + 1
        if what is Abuse.RAPID_RESET:
            return count <= self._resets_per_s + answered - self._answered
        allowed = PER_SECOND[what]
        if what is Abuse.WINDOW_UPDATE:
            # A client opens the connection's and a stream's window for each answer at the most.
            allowed += 2 * (answered - self._answered)
        return count <= allowed
