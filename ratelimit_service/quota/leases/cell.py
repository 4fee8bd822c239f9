"""What one replica holds and knows of one counter.

A *grant in hand* is unspent hits with the boot time until which they may be spent. A cell holds a few of them, the one
that ends first in front, because that is the one to spend first. Beside them it keeps what the store said last,
so that answers show a count, and a denial, while it lasts.
"""

from __future__ import annotations

from typing import Final

from ratelimit_service.algorithms.limit import Limit
from ratelimit_service.quota.leases.sizing import alive_until
from ratelimit_service.quota.store import NEVER_US, Outcome, Source
from ratelimit_service.quota.takes import Ask, CountedKey, Grant, Return, Take

LONGEST_DENIAL_US: Final = 1_000_000
"""After this one take asks again, whatever the store said (DECISIONS 16)."""

DENIAL_AHEAD_US: Final = 250_000
"""How long before the end of a denial a denied request makes the replica ask again, so that the next one need not."""

_LEASE: Final = Source.LEASE


class InHand:
    """Unspent hits of one grant.

    Attributes:
        left: Hits.
        until_us: Boot time from which they may not be spent any more.
        limit: The numbers under which they were asked for.
        number, epoch, window: What a return has to name.
        dies: Its window ends with it, so that there is nothing to return then.
    """

    __slots__ = ("dies", "epoch", "left", "limit", "number", "until_us", "window")

    def __init__(self, grant: Grant, limit: Limit, sent_us: int, *, dies: bool) -> None:
        self.dies = dies
        self.left = grant.granted
        self.until_us = alive_until(sent_us, grant.spend_us)
        self.limit = limit
        self.number = grant.number
        self.epoch = grant.epoch
        self.window = grant.window


class Cell:
    """One counter as this replica sees it. Times are boot time, microseconds.

    Attributes:
        identity, where: Which counter, of which counted key.
        limit: The numbers in force.
        exact: It is asked for request by request.
        left, until_us: Of the grant in front; 0 and 0 when nothing is in hand.
        others: Hits in hand behind the front.
        counted: Hits counted at the store as of its last answer, grants included; below 0: it has not answered yet.
        rest: What it could still have granted then.
        seen_us: When the take was sent that it answered.
        full_us: When the budget is full again, as it said.
        denied_hits: So many hits and more are denied; 0: no denial.
        denied_until_us: Until then.
        retry_us: When the denied hits fit, `NEVER_US` for never.
        owed, owed_until_us: Hits spent without the store, to be charged with the next take, and until when they count.
        taking: A take for this cell is under way.
        awaited: Hits that requests want which wait for it.
        taken_at_us: Last time at which hits were asked for.
        demand: Hits spent since `demand_since_us`.
        rate: Hits per microsecond, smoothed.
        seen_in_hand: What was in hand at the last look for idle grants; 0: something came since.
        sole: The take that the latest request alone has made (`alone.take_of`).
        queued: The cell is in the queue of those that are looked at.
    """

    __slots__ = (
        "_front",
        "awaited",
        "behind",
        "counted",
        "demand",
        "demand_since_us",
        "denied_hits",
        "denied_until_us",
        "exact",
        "full_us",
        "identity",
        "left",
        "limit",
        "others",
        "owed",
        "owed_until_us",
        "queued",
        "rate",
        "refill_below",
        "rest",
        "retry_us",
        "seen_in_hand",
        "seen_us",
        "sole",
        "taking",
        "until_us",
        "where",
    )

    def __init__(self, identity: bytes, where: CountedKey, limit: Limit, now_us: int, *, exact: bool = False) -> None:
        self.identity = identity
        self.exact = exact
        self.where = where
        self.limit = limit
        self._front: InHand | None = None
        self.behind: list[InHand] = []
        self.left = self.until_us = self.others = 0
        self.counted = -1
        self.rest = 0
        self.seen_us = self.full_us = 0
        self.denied_hits = self.denied_until_us = self.retry_us = 0
        self.owed = self.owed_until_us = 0
        self.taking = False
        self.awaited = 0
        self.demand = 0
        self.demand_since_us = now_us
        self.rate = 0.0
        self.refill_below = -1
        self.queued = False
        self.seen_in_hand = 0
        self.sole: Take | None = None

    # What is in hand.

    def held(self, now_us: int) -> int:
        """Hits that may be spent now."""
        front = self.left if now_us < self.until_us else 0
        return front + sum(each.left for each in self.behind if now_us < each.until_us)

    def receive(self, lease: InHand) -> None:
        """Take a grant in hand."""
        self._keep_front()
        hands = [*([self._front] if self._front is not None else []), *self.behind, lease]
        self._arrange([each for each in hands if each.left])

    def spend(self, hits: int, now_us: int) -> int:
        """Spend up to `hits` of what may be spent now, first what ends first; return how many were."""
        self._keep_front()
        hands = [*([self._front] if self._front is not None else []), *self.behind]
        wanted = hits
        for each in hands:
            if now_us < each.until_us:
                out = min(each.left, hits)
                each.left -= out
                hits -= out
        self._arrange([each for each in hands if each.left])
        self.demand += wanted - hits
        return wanted - hits

    def drop(self, now_us: int | None = None) -> list[InHand]:
        """Let go of what may not be spent at `now_us`, or (None) of everything, and return it."""
        self._keep_front()
        hands = [*([self._front] if self._front is not None else []), *self.behind]
        gone = [each for each in hands if now_us is None or now_us >= each.until_us]
        self._arrange([each for each in hands if each.left and each not in gone])
        return [each for each in gone if each.left]

    def return_of(self, lease: InHand) -> Return:
        """The order that gives an unspent grant back; to be sent at most once."""
        ask = Ask(self.identity, lease.limit, lease.left)
        return Return(self.where, ask, lease.number, lease.epoch, lease.window)

    def _keep_front(self) -> None:
        if self._front is not None:
            self._front.left = self.left

    def _arrange(self, hands: list[InHand]) -> None:
        hands.sort(key=_ends)
        self._front = hands[0] if hands else None
        self.behind = hands[1:]
        self.left, self.until_us = (hands[0].left, hands[0].until_us) if hands else (0, 0)
        self.others = sum(each.left for each in self.behind)

    # What the store said.

    def learn(self, grant: Grant, want: int, least: int, sent_us: int) -> None:
        """Take in what the store said of a take of `want` hits, at least `least`; 0 and 0 for a look."""
        self.counted = grant.before + grant.granted
        self.rest = grant.remaining
        self.seen_us = sent_us
        if grant.granted or (not want and grant.remaining):
            self.full_us = sent_us + grant.wait_us
            self.denied_hits = 0
        elif grant.remaining < max(1, least):
            self.deny(max(1, least), grant.wait_us, sent_us)

    def deny(self, hits: int, wait_us: int, sent_us: int) -> None:
        """Deny so many hits and more here, until the store may say otherwise."""
        never = wait_us == NEVER_US
        self.denied_hits = hits
        self.denied_until_us = sent_us + (LONGEST_DENIAL_US if never else min(wait_us, LONGEST_DENIAL_US))
        self.retry_us = NEVER_US if never else sent_us + wait_us

    def denies(self, hits: int, now_us: int) -> bool:
        """Whether so many hits (0: a check) are denied without asking."""
        return 0 < self.denied_hits <= max(hits, 1) and now_us < self.denied_until_us

    def is_doubtful(self, now_us: int) -> bool:
        """Whether a denial is about to end although its window does not: others may have returned some meanwhile.

        A take a little before its end spares the next request the asking.
        """
        return (
            self.denied_hits == 1
            and self.denied_until_us - now_us <= DENIAL_AHEAD_US
            and (self.retry_us == NEVER_US or self.retry_us > self.denied_until_us)
        )

    def wait_us(self, now_us: int) -> int:
        """How long denied hits wait from now."""
        return NEVER_US if self.retry_us == NEVER_US else max(1, self.retry_us - now_us)

    # What answers show.

    def before(self) -> int:
        """Hits counted that are not in this replica's hand."""
        return max(0, self.counted - self.left - self.others)

    def allowed(self, now_us: int) -> Outcome:
        """The answer after hits were spent from what is in hand."""
        return Outcome(False, self.left + self.others + self.rest, max(0, self.full_us - now_us), self.before(), _LEASE)

    # Debts.

    def owe(self, hits: int, now_us: int, until_us: int) -> None:
        """Remember hits that were spent without the store."""
        if now_us >= self.owed_until_us:
            self.owed = 0
        self.owed += hits
        self.owed_until_us = max(self.owed_until_us, until_us)

    def owes(self, now_us: int) -> int:
        """Hits that are still to be charged."""
        return self.owed if now_us < self.owed_until_us else 0

    # Demand.

    def measure(self, now_us: int, over_us: int) -> float:
        """Update the rate from what was spent since the last time, smoothed over about `over_us`."""
        passed_us = now_us - self.demand_since_us
        if passed_us > 0:
            weight = passed_us / (passed_us + over_us)
            self.rate += (self.demand / passed_us - self.rate) * weight
            self.demand = 0
            self.demand_since_us = now_us
        return self.rate

    def is_idle(self, now_us: int) -> bool:
        """Whether nothing is lost by forgetting the cell."""
        return not (
            self.taking
            or self._front is not None
            or self.owes(now_us)
            or (self.denied_hits and now_us < self.denied_until_us)
        )


def _ends(lease: InHand) -> int:
    return lease.until_us
