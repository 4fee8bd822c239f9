"""Ledgers that are nothing but the pure laws: one state by key, nothing shared, nothing ever dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from ratelimit_service.algorithms import fixed_window, sliding_window, token_bucket
from ratelimit_service.algorithms.judgement import Judgement
from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from ratelimit_service.quota.store import Outcome
from support.strategies import START_US, Step


class Answering(Protocol):
    """What laws ask of: every ledger is one."""

    def take(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome: ...

    def judge(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome: ...

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None: ...

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None: ...

    def forget(self, key: bytes) -> bool: ...

    def reclaim(self, now: Instant, budget: int) -> int: ...


class LawLedger:
    """Order of the calls; subclasses say what is counted."""

    def take(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        outcome = self.judge(limit, key, hits, now)
        if not outcome.over:
            self.spend(limit, key, hits, now)
        return outcome

    def judge(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        said = self.say(limit, key, hits, now.wall_us)
        return Outcome(said.over, said.remaining, said.wait_us, said.before)

    def say(self, limit: Limit, key: bytes, hits: int, wall_us: int) -> Judgement:
        raise NotImplementedError

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        raise NotImplementedError

    def forget(self, key: bytes) -> bool:
        raise NotImplementedError

    def reclaim(self, now: Instant, budget: int) -> int:
        """Time passes; nothing is dropped."""
        raise NotImplementedError


class FixedLaw(LawLedger):
    """Counts of the latest window."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.end_us = 0
        self.used: dict[bytes, int] = {}

    def at(self, limit: Limit, wall_us: int) -> None:
        if wall_us >= self.end_us:
            self.used = {}
            self.end_us = fixed_window.window_at(limit.window_us, wall_us).end_us

    def say(self, limit: Limit, key: bytes, hits: int, wall_us: int) -> Judgement:
        self.at(limit, wall_us)
        return fixed_window.judge(limit.requests, self.used.get(key, 0), hits, self.end_us - wall_us)

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        self.at(limit, now.wall_us)
        self.used[key] = fixed_window.spend(self.used.get(key, 0), hits)

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        self.at(limit, now.wall_us)
        self.used[key] = fixed_window.give_back(self.used.get(key, 0), hits)

    def reclaim(self, now: Instant, budget: int) -> int:
        self.at(self.limit, now.wall_us)
        return 0


class SlidingLaw(LawLedger):
    """Parts by key; the part reached is the ledger's, not the key's."""

    def __init__(self, limit: Limit) -> None:
        self.window_us = limit.window_us
        self.part = 0
        self.states: dict[bytes, sliding_window.State] = {}

    def at(self, wall_us: int) -> None:
        self.part = sliding_window.part_at(self.window_us, wall_us, self.part)

    def state(self, key: bytes) -> sliding_window.State:
        return self.states.get(key, sliding_window.EMPTY)

    def say(self, limit: Limit, key: bytes, hits: int, wall_us: int) -> Judgement:
        self.at(wall_us)
        return sliding_window.judge(limit.requests, self.window_us, self.state(key), self.part, hits, wall_us)

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        self.at(now.wall_us)
        self.states[key] = sliding_window.spend(self.state(key), self.part, hits)

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        self.at(now.wall_us)
        self.states[key] = sliding_window.give_back(self.state(key), self.part, hits)

    def reclaim(self, now: Instant, budget: int) -> int:
        self.at(now.wall_us)
        return 0


class Filled(NamedTuple):
    """A bucket: its arrival time, and the limit's requests that it was last filled at."""

    arrival: int
    requests: int


class BucketLaw(LawLedger):
    """Arrival times by key, at the latest time seen; a change of the rate converts what it meets."""

    def __init__(self, limit: Limit) -> None:
        self.latest_us = 0
        self.rates: dict[int, token_bucket.Rate] = {}
        self.until_us: dict[int, int] = {}
        self.requests = 0
        self.filled: dict[bytes, Filled] = {}

    def rate_of(self, limit: Limit) -> token_bucket.Rate:
        return token_bucket.rate_of(limit.requests, limit.window_us)

    def at(self, limit: Limit, wall_us: int) -> int:
        """The latest time, with `limit` in force from then on."""
        self.latest_us = max(self.latest_us, wall_us - START_US)
        if limit.requests != self.requests:
            self.until_us[self.requests] = self.latest_us
            self.rates[limit.requests] = self.rate_of(limit)
            self.requests = limit.requests
        return self.latest_us

    def arrival(self, limit: Limit, key: bytes, now_us: int) -> int:
        rate = self.rates[limit.requests]
        filled = self.filled.get(key)
        if filled is None:
            return now_us << rate.shift
        if filled.requests == limit.requests:
            return filled.arrival
        changed_us = self.until_us[filled.requests]
        return token_bucket.convert(filled.arrival, self.rates[filled.requests], rate, limit.burst, changed_us, now_us)

    def say(self, limit: Limit, key: bytes, hits: int, wall_us: int) -> Judgement:
        now_us = self.at(limit, wall_us)
        rate = self.rates[limit.requests]
        said = token_bucket.judge(rate, limit.burst, self.arrival(limit, key, now_us), hits, now_us)
        behind_us = (now_us - (wall_us - START_US)) * (said.wait_us > 0)
        return Judgement(said.over, said.remaining, said.wait_us + behind_us, said.before)

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        now_us = self.at(limit, now.wall_us)
        if hits:
            arrival = self.arrival(limit, key, now_us)
            after = token_bucket.spend(self.rates[limit.requests], arrival, hits, now_us)
            self.filled[key] = Filled(after, limit.requests)

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        now_us = self.at(limit, now.wall_us)
        if key in self.filled:
            arrival = self.arrival(limit, key, now_us)
            after = token_bucket.give_back(self.rates[limit.requests], arrival, hits, now_us)
            self.filled[key] = Filled(after, limit.requests)

    def reclaim(self, now: Instant, budget: int) -> int:
        self.latest_us = max(self.latest_us, now.wall_us - START_US)
        return 0


LAWS: Final[dict[Algorithm, type[FixedLaw | SlidingLaw | BucketLaw]]] = {
    Algorithm.FIXED_WINDOW: FixedLaw,
    Algorithm.SLIDING_WINDOW: SlidingLaw,
    Algorithm.TOKEN_BUCKET: BucketLaw,
}


def law_for(limit: Limit) -> Answering:
    """An empty ledger that is nothing but the law."""
    return LAWS[limit.algorithm](limit)


def perform(ledger: Answering, limit: Limit, step: Step, now: Instant) -> Outcome | None:
    """Make one call; its outcome, if it has one."""
    match step.operation:
        case "reclaim":
            ledger.reclaim(now, step.hits)
        case "forget":
            ledger.forget(step.key)
        case operation:
            return getattr(ledger, operation)(limit, step.key, step.hits, now)
    return None


Answer = tuple[bool, int, int, int]


def run(ledger: Answering, limits: Sequence[Limit], steps: Sequence[Step]) -> list[Answer]:
    """What a ledger answers to a schedule, in which the limits take turns as the steps say."""
    wall_us, answers = START_US, []
    for step in steps:
        wall_us += step.gap_us
        limit, now = limits[step.limit % len(limits)], Instant(wall_us, 0)
        said = perform(ledger, limit, step, now)
        if said is not None:
            answers.append((said.over, said.remaining, said.wait_us, said.before))
    return answers
