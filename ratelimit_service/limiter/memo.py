"""A bounded memory of plans by request bytes.

A request is remembered when its bytes come a second time: most keys of a wide population never come back, and
remembering them would cost more than it saves and push out those that do. First in, first out with a second
chance: a plan that was used since it was last looked at is passed over once. Each insertion does a bounded
amount of work, so neither a full memo nor one that was just cleared (everything it held is dropped a little at
a time) costs a pause.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

LONGEST_REMEMBERED_BYTES: Final = 512
"""Longer requests are resolved each time: they are rare, and would crowd out the others (DECISIONS 26)."""
LARGEST_PLAN_BYTES: Final = 16_384
"""So are requests with larger plans: one would push out dozens at once."""
_ENTRY_BYTES: Final = 160
"""Table slot, queue slot and the key's object, measured on CPython 3.11 and 3.13 and rounded up."""
_LOOKS_PER_INSERTION: Final = 8
_GRAVES_PER_INSERTION: Final = 16
_DOOR_SLOTS: Final = 2**15
"""Requests whose first coming is remembered, a hash each; a collision costs one more planning."""


class Remembered(Protocol):
    """A plan as the memo sees it."""

    used: bool
    size_bytes: int


Plan = TypeVar("Plan", bound=Remembered)


class Memo(Generic[Plan]):
    """Plans by request bytes.

    Attributes:
        get: Look a request up; the dictionary's own method, because it is on every request's path.
        size_bytes: Estimated memory of what is remembered, at most `most_bytes`.
    """

    __slots__ = ("_door", "_graves", "_most_bytes", "_plans", "_queue", "get", "size_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._graves: list[dict[bytes, Plan]] = []
        self._door = array("q", bytes(8 * _DOOR_SLOTS))
        self._begin()

    def _begin(self) -> None:
        self._plans: dict[bytes, Plan] = {}
        self._queue: deque[bytes] = deque()
        self.size_bytes = 0
        self.get = self._plans.get

    def offer(self, body: bytes, plan: Plan) -> None:
        """Remember the plan of a request that was not found, if its bytes have come before."""
        # Python's hash of bytes is keyed per process: nobody outside can make requests collide.
        mark = hash(body)
        slot = mark & (_DOOR_SLOTS - 1)
        if self._door[slot] != mark:
            self._door[slot] = mark
        else:
            self._put(body, plan)
        if self._graves:
            self._bury()

    def _put(self, body: bytes, plan: Plan) -> None:
        """Remember `plan`, forgetting others as room demands."""
        size_bytes = _size(body, plan)
        if (
            body in self._plans
            or len(body) > LONGEST_REMEMBERED_BYTES
            or size_bytes > min(LARGEST_PLAN_BYTES, self._most_bytes)
        ):
            return
        looks = _LOOKS_PER_INSERTION
        while self.size_bytes + size_bytes > self._most_bytes:
            oldest = self._queue.popleft()
            held = self._plans[oldest]
            looks -= 1
            if held.used and looks > 0:
                held.used = False
                self._queue.append(oldest)
            else:
                self.size_bytes -= _size(oldest, self._plans.pop(oldest))
        self._queue.append(body)
        self._plans[body] = plan
        self.size_bytes += size_bytes

    def clear(self) -> None:
        """Forget everything, at once for the caller and little by little for the memory."""
        if self._plans:
            self._graves.append(self._plans)
        self._begin()

    def _bury(self) -> None:
        """Free some of what was cleared."""
        grave = self._graves[-1]
        for _ in range(min(_GRAVES_PER_INSERTION, len(grave))):
            grave.popitem()
        if not grave:
            self._graves.pop()

    def __len__(self) -> int:
        """Plans remembered."""
        return len(self._plans)


def _size(body: bytes, plan: Remembered) -> int:
    # Keys and values of the request are in the plan a second and a third time.
    return _ENTRY_BYTES + 3 * len(body) + plan.size_bytes
