"""How far a history of calls went beyond a law, whatever the order in which a store saw them.

A call was decided at some instant of [sent, answered]; a stopped process answers late. So a history is good if some
instant within each of these satisfies the law (DECISIONS 22), and its excess is the least that any choice of instants
leaves. What is computed never exceeds that, so an excess that is found is one:

- *FixedWindow*: each call counts in one window that it touches. Exact where every call has one hit; otherwise a lower
  bound, that of a history whose calls may be split over windows.
- *SlidingWindow*, *TokenBucket*: of every interval, the calls that lie wholly within it. Exact where calls take no
  time; otherwise a lower bound.

Intervals are closed: hits at both ends of an interval as long as the window count together.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ratelimit_service.algorithms.limit import Algorithm, Limit


class Call(NamedTuple):
    """One call as its caller saw it; times are of one clock, in microseconds of wall time."""

    sent_us: int
    answered_us: int
    hits: int
    admitted: bool
    key: bytes = b""


class Excess(NamedTuple):
    """The greatest excess of one key; `hits` 0: the law holds.

    Attributes:
        hits: Admitted beyond the law.
        key: Where.
        since_us: First instant of the worst interval (FixedWindow: 0).
        until_us: Its last instant (FixedWindow: 0).
    """

    hits: int
    key: bytes = b""
    since_us: int = 0
    until_us: int = 0


def excess(limit: Limit, calls: Iterable[Call]) -> Excess:
    """The greatest excess of any key. O(n log n); windows of a calendar are not judged.

    Raises:
        ValueError: The limit follows a calendar, or a call was answered before it was sent.
    """
    if limit.calendar is not None:
        raise ValueError("a history is judged by windows of one length")
    by_key: defaultdict[bytes, list[Call]] = defaultdict(list)
    for call in calls:
        if call.answered_us < call.sent_us:
            raise ValueError(f"answered before it was sent: {call}")
        if call.admitted and call.hits > 0:
            by_key[call.key].append(call)
    judge = _JUDGES[limit.algorithm]
    found = (judge(limit, key, admitted) for key, admitted in by_key.items())
    return max(found, default=Excess(0), key=lambda one: one.hits)


def _fixed(limit: Limit, key: bytes, calls: Sequence[Call]) -> Excess:
    """The least number M such that every call finds a window with room when each holds M."""
    spans = sorted((call.sent_us // limit.window_us, call.answered_us // limit.window_us, call.hits) for call in calls)
    certain: defaultdict[int, int] = defaultdict(int)
    first: defaultdict[int, int] = defaultdict(int)
    for begin, end, hits in spans:
        first[begin] += hits
        certain[begin] += hits * (begin == end)
    least, enough = max(limit.requests, *certain.values()), max(first.values())
    while least < enough:
        middle = (least + enough) // 2
        if _fits(spans, middle):
            enough = middle
        else:
            least = middle + 1
    return Excess(max(0, least - limit.requests), key)


def _fits(spans: Sequence[tuple[int, int, int]], room: int) -> bool:
    """Whether windows of `room` hits hold all spans (first window, last window, hits); the most urgent go first."""
    if room < 1:
        return False
    pending: list[tuple[int, int]] = []
    at = window = 0
    while pending or at < len(spans):
        if not pending:
            window = spans[at][0]
        while at < len(spans) and spans[at][0] <= window:
            heapq.heappush(pending, spans[at][1:])
            at += 1
        left = room
        while pending and left:
            last, hits = heapq.heappop(pending)
            if last < window:
                return False
            if hits > left:
                heapq.heappush(pending, (last, hits - left))
            left -= min(hits, left)
        window += 1
    return True


def _latest_sent_first(calls: Sequence[Call]) -> list[tuple[int, Call]]:
    """The calls with their places."""
    return sorted(enumerate(calls), key=lambda one: one[1].sent_us, reverse=True)


class _Sums:
    """Sums over prefixes of a row of numbers that changes (a Fenwick tree)."""

    def __init__(self, size: int) -> None:
        self._tree = [0] * (size + 1)

    def add(self, index: int, number: int) -> None:
        index += 1
        while index < len(self._tree):
            self._tree[index] += number
            index += index & -index

    def before(self, index: int) -> int:
        """The sum of the first `index` numbers."""
        total = 0
        while index:
            total += self._tree[index]
            index &= index - 1
        return total


def _sliding(limit: Limit, key: bytes, calls: Sequence[Call]) -> Excess:
    """The greatest sum within [s, s + window] where s is a call's sending; further left or right holds no more."""
    by_answer = sorted(calls, key=lambda call: call.answered_us)
    sums, upto, worst = _Sums(len(calls)), len(calls), Excess(0, key)
    # The latest sending first: what is in the sums was sent no earlier than the call at hand.
    for place, call in _latest_sent_first(by_answer):
        sums.add(place, call.hits)
        until_us = call.sent_us + limit.window_us
        while upto and by_answer[upto - 1].answered_us > until_us:
            upto -= 1
        over = sums.before(upto) - limit.requests
        if over > worst.hits:
            worst = Excess(over, key, call.sent_us, until_us)
    return worst


class _Peak:
    """The greatest prefix sum, less a fee for each prefix, of numbers that change: a tree of (sum, peak, where)."""

    _NONE = (0, -(1 << 200), -1)

    def __init__(self, size: int) -> None:
        self._leaves = 1 << (size - 1).bit_length()
        self._tree = [self._NONE] * (2 * self._leaves)

    def put(self, index: int, number: int, fee: int) -> None:
        """Set a number, and the fee of the prefix that ends with it."""
        node = index + self._leaves
        tree = self._tree
        tree[node] = (number, number - fee, index)
        node //= 2
        while node:
            total, peak, where = tree[2 * node]
            right = tree[2 * node + 1]
            tree[node] = (total + right[0], peak, where)
            if total + right[1] > peak:
                tree[node] = (total + right[0], total + right[1], right[2])
            node //= 2

    def greatest(self) -> tuple[int, int]:
        """Greatest sum less its fee, and the index at which that prefix ends."""
        return self._tree[1][1:]


def _bucket(limit: Limit, key: bytes, calls: Sequence[Call]) -> Excess:
    """The greatest of hits within [s, e] - burst - rate * (e - s); s is a call's sending and e a call's answer."""
    by_answer = sorted(calls, key=lambda call: call.answered_us)
    peak, worst = _Peak(len(calls)), Excess(0, key)
    for place, call in _latest_sent_first(by_answer):
        # Times the window's length, to stay with integers.
        peak.put(place, call.hits * limit.window_us, limit.requests * call.answered_us)
        most, where = peak.greatest()
        over = most + limit.requests * call.sent_us - limit.burst * limit.window_us
        hits = -(-over // limit.window_us)
        if hits > worst.hits:
            worst = Excess(hits, key, call.sent_us, by_answer[where].answered_us)
    return worst


_JUDGES = {
    Algorithm.FIXED_WINDOW: _fixed,
    Algorithm.SLIDING_WINDOW: _sliding,
    Algorithm.TOKEN_BUCKET: _bucket,
}
