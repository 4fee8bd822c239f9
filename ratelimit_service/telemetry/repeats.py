"""Hold repeated messages back, so that nothing a client does can flood the log."""

from __future__ import annotations

from collections import OrderedDict


class Repeats:
    """Lets each message through `burst` times per period and counts what it holds back.

    Attributes:
        burst: Messages of one key per period, at least 1.
        period_us: Length of a period; it starts with the first message of a key.
        max_keys: Keys remembered; the one that has been silent longest is forgotten first.
    """

    def __init__(self, burst: int, period_us: int, max_keys: int = 1_024) -> None:
        self.burst = burst
        self.period_us = period_us
        self.max_keys = max_keys
        self._seen: OrderedDict[tuple[str, str], tuple[int, int, int]] = OrderedDict()
        """Key → (start of its period, messages in it, messages held back since one was let through)."""

    def admit(self, key: tuple[str, str], now_us: int) -> int | None:
        """None: hold this message back. Else: let it through, and how many were held back before it.

        Args:
            key: What makes two messages the same: level and event.
            now_us: A clock that does not go back.
        """
        start_us, count, held = self._seen.get(key, (now_us, 0, 0))
        if now_us - start_us >= self.period_us:
            start_us, count = now_us, 0
        admitted = count < self.burst
        self._seen[key] = (start_us, count + 1, 0 if admitted else held + 1)
        self._seen.move_to_end(key)
        if len(self._seen) > self.max_keys:
            self._seen.popitem(last=False)
        return held if admitted else None
