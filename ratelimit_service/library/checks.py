"""Decide a check from what is in hand, count it, and tell it in the program's words: the hot path of the limiter."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.cache.warming import KeyWorth
from ratelimit_service.library.config import RateLimitConfig
from ratelimit_service.library.laws import Law, LawBook, problems_of
from ratelimit_service.library.measures import DURATION_BOUNDS_US, SAMPLE_EVERY
from ratelimit_service.library.quotas import Quota
from ratelimit_service.library.results import NEVER_MS, InvalidRateLimit, RateLimitResult, RateLimitStoreLost
from ratelimit_service.policy.identity import MAX_PLAIN_BYTES, counter_key
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.memory.bounds import Clock
from ratelimit_service.quota.prompt import PromptStore
from ratelimit_service.quota.store import Charge, Outcome
from ratelimit_service.telemetry.histogram import Histogram

__all__ = ["Checking", "Checks"]

_SAMPLES_PER_LOOK: Final = 64
"""How full memory is is looked at once in so many samples: about every thousand checks."""
_TOLD_EVERY_US: Final = 10_000_000
"""Between two warnings that a failure mode decides."""

_LENGTHS: Final = tuple(bytes((length,)) for length in range(MAX_PLAIN_BYTES + 1))
"""What `counter_key` puts before a value, written out because it is every check's path."""

Checking = tuple[Law, tuple[Charge], Instant]
"""A check that waits for the store: what the store is to be asked, and when it began."""


class Checks:
    """The checks of one limiter.

    Attributes:
        book: The limits that are in use.
        durations: Of checks, by the limiter's clock.
        worth: The busiest keys.
        crowded: Limits and keys that checks wait for already (`crowds`); whoever comes waits too.
        read: Reads the clocks.
    """

    def __init__(self, config: RateLimitConfig, quota: Quota, clock: Clock, log: logging.Logger) -> None:
        self.book = LawBook(config.namespace, config.failure, quota.store.apply)
        self.durations = Histogram(DURATION_BOUNDS_US)
        self.worth = KeyWorth(config.top_keys)
        self._config = config
        self._quota = quota
        store = quota.store
        self._charge = store.charge
        self._take = store.charge_one if isinstance(store, PromptStore) else None
        self.read = clock.read
        self.crowded: Collection[tuple[bytes, bytes]] = ()
        self._log = log
        self._laws = self.book.laws
        self._until_sample = SAMPLE_EVERY
        self._until_look = _SAMPLES_PER_LOOK
        self._told_us = -_TOLD_EVERY_US

    def decide(
        self, key: str, limit: int, window_ms: int, algorithm: str, hits: int, burst: int | None
    ) -> RateLimitResult | Checking:
        """Decide a check at once, or say what the store has to be asked. Every check's path."""
        now = self.read()
        try:
            law = self._laws[algorithm, limit, window_ms, burst]
            raw = key.encode()
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
            law = self._law(key, limit, window_ms, algorithm, hits, burst, now)
            raw = key.encode(errors="surrogatepass") if isinstance(key, str) else key
        # 1.0 and True find what 1 finds.
        if (
            limit.__class__ is not int
            or window_ms.__class__ is not int
            or hits.__class__ is not int
            or not 0 <= hits <= MAX_HITS
            or not raw
        ):
            law = self._law(key, limit, window_ms, algorithm, hits, burst, now)
        length = len(raw)
        counter = _LENGTHS[length] + raw if length <= MAX_PLAIN_BYTES else counter_key((raw,))
        take = self._take
        if take is not None:
            outcome = take(law, counter, hits, now)
        else:
            charges = (Charge(law.identity, law.limit, counter, hits),)
            if self.crowded and (law.identity, counter) in self.crowded:
                return law, charges, now
            outcomes = self._charge(charges, now)
            if outcomes is None:
                return law, charges, now
            outcome = outcomes[0]
        self._until_sample -= 1
        if not self._until_sample:
            self._sample(key, now)
        if outcome.over or outcome.degraded:
            return self.result(law, outcome, now)
        # As `result`, written out because it is every check's path.
        law.allowed += 1
        reset_at_ms = -(-(now.wall_us + outcome.wait_us) // 1_000)
        return RateLimitResult(True, law.requests, outcome.remaining, 0, reset_at_ms, law.algorithm)

    def _law(
        self, key: object, limit: int, window_ms: int, algorithm: str, hits: int, burst: int | None, now: Instant
    ) -> Law:
        problems = problems_of(key, limit, window_ms, algorithm, hits, burst)
        if problems:
            raise InvalidRateLimit(problems)
        return self.book.law(limit, window_ms, algorithm, burst, now.boot_us)

    def result(self, law: Law, outcome: Outcome, now: Instant) -> RateLimitResult:
        """Count a check, and tell it in the program's words.

        Raises:
            RateLimitStoreLost: A failure mode decided, and the program wants to be told so.
        """
        if outcome.degraded:
            return self._degraded(law, outcome, now)
        if outcome.over:
            law.denied += 1
            return _denied(law, outcome, now)
        law.allowed += 1
        reset_at_ms = -(-(now.wall_us + outcome.wait_us) // 1_000)
        return RateLimitResult(True, law.requests, outcome.remaining, 0, reset_at_ms, law.algorithm)

    def _degraded(self, law: Law, outcome: Outcome, now: Instant) -> RateLimitResult:
        """The same for a check that a failure mode decided."""
        law.degraded += 1
        if outcome.over:
            law.denied += 1
            result = _denied(law, outcome, now)
        else:
            law.allowed += 1
            reset_at_ms = -(-(now.wall_us + outcome.wait_us) // 1_000)
            result = RateLimitResult(
                True, law.requests, outcome.remaining, 0, reset_at_ms, law.algorithm, degraded=True
            )
        if now.boot_us - self._told_us >= _TOLD_EVERY_US:
            self._told_us = now.boot_us
            reason = self._quota.report().reason or "no answer in time"
            self._log.warning("rate limits are decided by failure mode %s: %s", self._config.failure.value, reason)
        if self._config.raise_when_degraded:
            raise RateLimitStoreLost((result,))
        return result

    def _sample(self, key: str, now: Instant) -> None:
        """Time a check, note its key, and now and then see whether room is short."""
        self._until_sample = SAMPLE_EVERY
        self.durations.observe(self.read().boot_us - now.boot_us, SAMPLE_EVERY)
        self.worth.note(key, SAMPLE_EVERY)
        self._until_look -= 1
        if not self._until_look:
            self._until_look = _SAMPLES_PER_LOOK
            self.book.drop_idle(now.boot_us)
            if self.is_pressed():
                self._quota.relieve(now)

    def is_pressed(self) -> bool:
        """Whether memory has reached its warning level."""
        return self._quota.fill_percent() >= self._config.warning_percent

    def pressure(self) -> str:
        """How full memory is, in a word."""
        if self._quota.fill_percent() >= self._config.critical_percent:
            return "critical"
        return "warning" if self.is_pressed() else "normal"


def _denied(law: Law, outcome: Outcome, now: Instant) -> RateLimitResult:
    wait_us = outcome.wait_us
    if wait_us < 0:
        return RateLimitResult(False, law.requests, 0, NEVER_MS, NEVER_MS, law.algorithm, outcome.degraded)
    reset_at_ms = -(-(now.wall_us + wait_us) // 1_000)
    return RateLimitResult(False, law.requests, 0, -(-wait_us // 1_000), reset_at_ms, law.algorithm, outcome.degraded)
