"""From the arguments of a check to the limit that counts it: checked once, then found by one look-up.

A limit's identity is its algorithm and window (DECISIONS 8): checks that differ in `limit` or `burst` alone share a
count. All identities of a namespace are one rule of the store, so that a key is reset as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from ratelimit_service.algorithms.limit import MAX_REQUESTS, Algorithm, FailureMode, Limit, LimitSettings
from ratelimit_service.library.results import InvalidRateLimit
from ratelimit_service.policy.identity import counter_key, limit_id

__all__ = ["ALGORITHMS", "MOST_HITS", "MOST_WINDOW_MS", "Family", "Law", "LawBook", "Tally", "counted", "problems_of"]

ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "fixed_window": Algorithm.FIXED_WINDOW,
    "sliding_window": Algorithm.SLIDING_WINDOW,
    "token_bucket": Algorithm.TOKEN_BUCKET,
}
"""Algorithms by the names that programs use."""

MOST_WINDOW_MS: Final = 366 * 86_400_000
MOST_HITS: Final = 2**64 - 1
MOST_FAMILIES: Final = 4_096
"""Algorithms and windows that one limiter counts at a time; a program that has more makes them up as it goes."""

_MOST_LAWS: Final = 16_384
_MOST_PER_MS: Final = 1_000_000
_US_PER_MS: Final = 1_000
_RULE: Final = ""
_LawKey = tuple[str, int, int, int | None]


class Tally:
    """Checks of one algorithm: plain integers that only grow."""

    __slots__ = ("allowed", "degraded", "denied")

    def __init__(self) -> None:
        self.allowed = self.denied = self.degraded = 0

    def add(self, other: Tally | Law) -> None:
        """Count what another one counted too."""
        self.allowed += other.allowed
        self.denied += other.denied
        self.degraded += other.degraded


class Family:
    """All limits of one identity.

    Attributes:
        identity: As the store knows it.
        name: For people: algorithm and window.
        used_us: Boot time by which its last check was, as far as was noted.
        life_us: How long after a check it may still count for something.
    """

    __slots__ = ("identity", "life_us", "name", "used_us")

    def __init__(self, identity: bytes, name: str) -> None:
        self.identity = identity
        self.name = name
        self.used_us = self.life_us = 0


class Law:
    """One limit, ready to be counted: what a store calls `Counted`.

    Attributes:
        allowed, denied, degraded: Checks, as `Tally`.
        algorithm: Its name.
        limit: Its numbers.
        requests: `limit.requests`, one look-up nearer to the hot path.
        family: Which counters it shares.
        identity: The family's.
    """

    __slots__ = ("_noted", "algorithm", "allowed", "degraded", "denied", "family", "identity", "limit", "requests")

    def __init__(self, algorithm: str, limit: Limit, family: Family) -> None:
        self.algorithm = algorithm
        self.limit = limit
        self.requests = limit.requests
        self.family = family
        self.identity = family.identity
        self.allowed = self.denied = self.degraded = 0
        self._noted = 0

    def note_use(self, boot_us: int) -> None:
        """Tell the family if there was a check since this was called last."""
        checks = self.allowed + self.denied
        if checks != self._noted:
            self._noted = checks
            self.family.used_us = boot_us


class LawBook:
    """The limits that a program uses.

    Args:
        namespace: The domain of their identities.
        failure: Their failure mode.
        apply: Brings limits into force (`Store.apply`).

    Attributes:
        laws: By the arguments of a check; look here first.
    """

    def __init__(
        self, namespace: str, failure: FailureMode, apply: Callable[[Mapping[bytes, LimitSettings]], None]
    ) -> None:
        self.laws: dict[_LawKey, Law] = {}
        self._gone = {name: Tally() for name in ALGORITHMS}
        self._namespace = namespace
        self._failure = failure
        self._apply = apply
        self._families: dict[bytes, Family] = {}
        self._in_force: dict[bytes, LimitSettings] = {}

    def law(self, limit: int, window_ms: int, algorithm: str, burst: int | None, boot_us: int) -> Law:
        """The law of arguments that are good (`problems_of`), made and brought into force if need be.

        Raises:
            InvalidRateLimit: There are more windows than a limiter counts at a time, and all are in use.
        """
        at = (algorithm, limit, window_ms, burst)
        law = self.laws.get(at)
        if law is not None:
            return law
        kind = ALGORITHMS[algorithm]
        depth = limit if burst is None or kind is not Algorithm.TOKEN_BUCKET else burst
        numbers = Limit(kind, limit, window_ms * _US_PER_MS, depth)
        family = self._family(numbers, f"{algorithm}/{window_ms} ms", boot_us)
        family.life_us = max(family.life_us, _life_us(numbers))
        law = Law(algorithm, numbers, family)
        if len(self.laws) >= _MOST_LAWS:
            # Numbers that a program computes; those in use are made again as they come.
            self.note_use(boot_us)
            self._forget(list(self.laws))
        self.laws[at] = law
        return law

    def _forget(self, laws: list[_LawKey]) -> None:
        """Let go of laws, and keep what they counted."""
        for at in laws:
            law = self.laws.pop(at)
            self._gone[law.algorithm].add(law)

    def tallies(self) -> dict[str, Tally]:
        """Checks by algorithm, ever."""
        totals = {name: Tally() for name in ALGORITHMS}
        for name, gone in self._gone.items():
            totals[name].add(gone)
        for law in self.laws.values():
            totals[law.algorithm].add(law)
        return totals

    def note_use(self, boot_us: int) -> None:
        """Note which limits were used since this was called last; `drop_idle` goes by it."""
        for law in self.laws.values():
            law.note_use(boot_us)

    def _family(self, numbers: Limit, name: str, boot_us: int) -> Family:
        identity = limit_id(self._namespace, _RULE, numbers)
        family = self._families.get(identity)
        if family is None:
            if len(self._families) >= MOST_FAMILIES and not self.drop_idle(boot_us):
                raise InvalidRateLimit({"window_ms": f"more than {MOST_FAMILIES} different windows are in use"})
            family = self._families[identity] = Family(identity, name)
            family.used_us = boot_us
            self._in_force[identity] = LimitSettings(numbers, self._namespace, name, self._failure)
            self._apply(dict(self._in_force))
        return family

    def drop_idle(self, boot_us: int) -> int:
        """Let go of limits that count for nothing any more: not used for longer than they remember. Return how many."""
        self.note_use(boot_us)
        idle = [family for family in self._families.values() if boot_us - family.used_us > family.life_us]
        for family in idle:
            del self._families[family.identity], self._in_force[family.identity]
        if idle:
            gone = {family.identity for family in idle}
            self._forget([at for at, law in self.laws.items() if law.identity in gone])
            self._apply(dict(self._in_force))
        return len(idle)

    def identities(self) -> list[bytes]:
        """All identities in force."""
        return list(self._families)

    def names(self) -> list[str]:
        """What people call them; each is a rule of the store's `bound`."""
        return [family.name for family in self._families.values()]

    def newest(self) -> list[Law]:
        """One law of each family: the last one that was made."""
        return list({law.identity: law for law in self.laws.values()}.values())


def _life_us(limit: Limit) -> int:
    """How long hits count, at the most: a part more than the window, or as long as a bucket takes to fill."""
    if limit.algorithm is Algorithm.TOKEN_BUCKET:
        return 2 * -(-limit.burst * limit.window_us // limit.requests)
    return 2 * limit.window_us


def counted(key: object) -> bytes:
    """The bytes that a key is counted by. Keys of more than 128 bytes are counted by their digest.

    Raises:
        InvalidRateLimit: It is no text, or an empty one.
    """
    if isinstance(key, str) and key:
        return counter_key((key.encode(errors="surrogatepass"),))
    if isinstance(key, bytes) and key:
        return counter_key((key,))
    raise InvalidRateLimit({"key": f"a text that is not empty is wanted, not {key!r:.60}"})


def problems_of(
    key: object, limit: object, window_ms: object, algorithm: object, hits: object, burst: object
) -> dict[str, str]:
    """What is wrong with the arguments of a check, by their names; empty: nothing."""
    return dict(_problems(key, limit, window_ms, algorithm, hits, burst))


def _problems(
    key: object, limit: object, window_ms: object, algorithm: object, hits: object, burst: object
) -> Iterator[tuple[str, str]]:
    if not isinstance(key, str | bytes) or not key:
        yield "key", f"a text that is not empty is wanted, not {key!r:.60}"
    is_known = isinstance(algorithm, str) and algorithm in ALGORITHMS
    if not is_known:
        yield "algorithm", f"one of {', '.join(ALGORITHMS)} is wanted, not {algorithm!r:.60}"
    is_bucket = algorithm == "token_bucket"
    least = 1 if is_bucket else 0
    good = True
    for name, value, low, high in (
        ("limit", limit, least, MAX_REQUESTS),
        ("window_ms", window_ms, 1, MOST_WINDOW_MS),
        ("hits", hits, 0, MOST_HITS),
        ("burst", 1 if burst is None else burst, 1, MAX_REQUESTS),
    ):
        if type(value) is not int or not low <= value <= high:
            good = False
            yield name, f"a whole number from {low} to {high} is wanted, not {value!r:.60}"
    if burst is not None and is_known and not is_bucket:
        yield "burst", f"goes with token_bucket, not with {algorithm}"
    if good and is_bucket:
        assert isinstance(limit, int) and isinstance(window_ms, int) and isinstance(burst, int | None)  # noqa: PT018
        if limit > window_ms * _MOST_PER_MS:
            yield "limit", f"at most {_MOST_PER_MS} per millisecond can be counted"
        if (burst or limit) * window_ms > limit * MOST_WINDOW_MS:
            yield "burst", "the bucket would take more than 366 days to fill"
