"""Drive any store as the limiter does, and see its answers as plain values.

A store joins the behaviour suite by one more entry of `HARNESSES`: a function from `StoreOptions` to a `StoreHarness`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit, LimitSettings
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.quota.prompt import PromptStore
from ratelimit_service.quota.redis.twin import SharedState
from ratelimit_service.quota.store import Charge, Outcome, Role, Store, Usage
from support.clocks import ManualClock
from support.deferred_store import DeferredStore
from support.replicas import SharedOrders, SharedStore
from support.schedulers import ManualScheduler

SECOND_US: Final = 1_000_000
WINDOW_US: Final = 10 * SECOND_US
START_WALL_US: Final = 1_700_000_000 * SECOND_US


class StoreOptions(msgspec.Struct, frozen=True):
    """What a test asks of the store that it wants."""

    max_keys: int = 10_000
    max_bytes: int = 200 * 1024 * 1024


def limit_of(algorithm: Algorithm, requests: int, window_us: int = WINDOW_US) -> Limit:
    """A limit whose burst is its requests."""
    return Limit(algorithm, requests=requests, window_us=window_us, burst=requests)


def fixed(requests: int, window_us: int = WINDOW_US) -> Limit:
    """A fixed window."""
    return limit_of(Algorithm.FIXED_WINDOW, requests, window_us)


def charge(
    limit: Limit,
    key: bytes = b"key",
    *,
    hits: int = 1,
    role: Role = Role.ENFORCE,
    unit: int = 0,
    rule: bytes = b"rule",
) -> Charge:
    """A charge of a rule; its identity is the rule's name and the limit's algorithm and window, as DECISIONS 8 says."""
    identity = b"%b/%b/%d" % (rule, limit.algorithm.value.encode(), limit.window_us)
    return Charge(identity=identity, limit=limit, key=key, hits=hits, role=role, unit=unit)


def in_force(
    *charges: Charge, domain: str = "shop", failure: FailureMode = FailureMode.SHARE
) -> dict[bytes, LimitSettings]:
    """What `apply` takes to bring the limits of some charges into force."""
    return {
        each.identity: LimitSettings(each.limit, domain, each.identity.split(b"/")[0].decode(), failure)
        for each in charges
    }


class OneSide(NamedTuple):
    """A charge as a side of its own."""

    limits: tuple[Charge]
    hits: int


class OneSideEach(NamedTuple):
    """Charges that all ENFORCE as the form of a request."""

    sides: tuple[OneSide, ...]
    charges: int


def as_form(charges: Sequence[Charge]) -> OneSideEach | None:
    """What a prompt store may be asked in its shorter way: limits in force of different identities that ENFORCE."""
    identities = {charge.identity for charge in charges}
    if len(identities) != len(charges) or any(
        charge.role is not Role.ENFORCE or charge.failure is not FailureMode.SHARE for charge in charges
    ):
        return None
    return OneSideEach(tuple(OneSide((charge,), charge.hits) for charge in charges), len(charges))


class StoreHarness:
    """A store, its clock and the loop that it defers to."""

    def __init__(self, store: Store, clock: ManualClock, scheduler: ManualScheduler) -> None:
        self.store = store
        self.clock = clock
        self._scheduler = scheduler

    def charge(self, *charges: Charge) -> list[Outcome]:
        """Decide one request, at once or later, as the store likes."""
        now = self.clock.read()
        form = as_form(charges)
        if form is not None and isinstance(self.store, PromptStore):
            keys = [charge.key for charge in charges]
            if len(charges) == 1:
                return [self.store.charge_one(charges[0], keys[0], charges[0].hits, now)]
            return list(self.store.charge_form(form, keys, now))
        outcomes = self.store.charge(charges, now)
        if outcomes is None:
            return self._answer(lambda done: self.store.charge_later(charges, now.boot_us + SECOND_US, done))
        return list(outcomes)

    def charge_later(self, *charges: Charge) -> list[Outcome]:
        """Decide one request by `charge_later`, which must not answer before it returns."""
        early: list[Outcome] = []
        self.store.charge_later(charges, self.clock.read().boot_us + SECOND_US, early.extend)
        assert early == []
        self._scheduler.run()
        return early

    def admitted(self, *charges: Charge) -> bool:
        """Charge; True when every charge fitted."""
        return not any(outcome.over for outcome in self.charge(*charges))

    def used(self, asked: Charge) -> int:
        """Hits that a charge's counter holds."""
        return self.peek(msgspec.structs.replace(asked, hits=0))[0].before

    def peek(self, *charges: Charge) -> list[Outcome]:
        """Judge without counting."""
        return self._answer(lambda done: self.store.peek(charges, self.clock.read(), done))

    def refund(self, *charges: Charge) -> list[Outcome]:
        """Give hits back."""
        return self._answer(lambda done: self.store.refund(charges, self.clock.read(), done))

    def reset(self, asked: Charge) -> bool | None:
        """Forget a charge's counter."""
        answers: list[bool | None] = []
        self.store.reset(asked.identity, asked.key, answers.append)
        self._scheduler.run()
        (answer,) = answers
        return answer

    def usage(self, domain: str, page: int) -> list[Usage]:
        """One page of a domain's counters."""
        answers: list[Sequence[Usage] | None] = []
        self.store.usage(domain, page, answers.append)
        self._scheduler.run()
        (answer,) = answers
        assert answer is not None
        return list(answer)

    def advance(self, duration_us: int) -> None:
        """Let time pass."""
        self.clock.advance(duration_us)

    def _answer(self, ask: Callable[[Callable[[Sequence[Outcome]], None]], None]) -> list[Outcome]:
        answers: list[Sequence[Outcome]] = []
        ask(answers.append)
        self._scheduler.run()
        (answer,) = answers
        return list(answer)


def _memory(options: StoreOptions) -> StoreHarness:
    clock, scheduler = ManualClock(wall_us=START_WALL_US), ManualScheduler()
    store = MemoryStore(
        clock=clock,
        max_keys=options.max_keys,
        max_bytes=options.max_bytes,
        call_soon=scheduler.call_soon,
        hash_key=b"fixed for tests",
    )
    return StoreHarness(store, clock, scheduler)


def _deferred(options: StoreOptions) -> StoreHarness:
    clock, scheduler = ManualClock(wall_us=START_WALL_US), ManualScheduler()
    inner = MemoryStore(
        clock=clock,
        max_keys=options.max_keys,
        max_bytes=options.max_bytes,
        call_soon=scheduler.call_soon,
        hash_key=b"fixed for tests",
    )
    return StoreHarness(DeferredStore(inner, scheduler.call_soon), clock, scheduler)


def _shared(exact: bool) -> Callable[[StoreOptions], StoreHarness]:
    def build(options: StoreOptions) -> StoreHarness:
        clock, scheduler = ManualClock(wall_us=START_WALL_US), ManualScheduler()
        settings = ReplicaSettings(leases=LeaseSettings(exact=exact, max_keys=options.max_keys))
        store = SharedStore(settings, SharedOrders(SharedState(), clock, scheduler), clock, scheduler)
        return StoreHarness(store, clock, scheduler)

    return build


HARNESSES: Final[dict[str, Callable[[StoreOptions], StoreHarness]]] = {
    "memory": _memory,
    "deferred": _deferred,
    "exact": _shared(exact=True),
    "leased": _shared(exact=False),
}
"""Every store that the behaviour suite holds to one behaviour."""

BOUNDED: Final = ("memory", "deferred")
"""Those that bound their own memory."""
