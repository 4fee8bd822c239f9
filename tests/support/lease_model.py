"""Every schedule of a small lease protocol: a few takes, a limit of three, and a network that does its worst.

Explored: messages late and in any order; takes executed twice; returns, also of leases that are over; a reset; one
step of the store's clock, either way; windows that end meanwhile. A message that is lost is one that is never
delivered, and a replica that crashed is one that spends no more, so both need no step of their own: every state is
an end. Which replica holds a lease makes no difference to the store, so that one model covers as many replicas as
there are takes. True time is what replicas and the promise go by; the store's clock is true time plus a step.

Promised, of what the store granted before a reset and of what it granted after it:

- *FixedWindow*: at most the limit in each of the store's windows; without a clock step, in each true one.
- *SlidingWindow*: at most the limit in each closed interval as long as the window; around a step forward, of what was
  granted before it and of what was granted after it.
- *TokenBucket*: burst + rate · t in any interval; a step forward adds what refills meanwhile, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from ratelimit_service.algorithms.limit import Algorithm
from support.explore import Explored, explore
from support.lease_stores import Granted, LeaseStore, Lent, StoreState

_Item = TypeVar("_Item")


class Schedule(NamedTuple):
    """How much may happen in one run; the more, the more states.

    Attributes:
        instants: True times, in order, the first of them 0.
        takes: Takes sent, in all.
        want: Hits asked for by each.
        lease: How long a grant may be spent, at the most.
        duplicates: Takes that are executed twice, of which only the second answer arrives.
        returns: Returns sent, in all.
        resets: Resets, at most.
        clock_step: By how much the store's clock may be set, once and either way; 0: not.
    """

    instants: tuple[int, ...]
    takes: int = 3
    want: int = 2
    lease: int = 4
    duplicates: int = 0
    returns: int = 0
    resets: int = 0
    clock_step: int = 0


class ReplicaRules(NamedTuple):
    """What a replica keeps to; False: planted.

    Attributes:
        lease_from_sending: A lease is measured from the sending of its take, not from the answer.
        returns_once: A return is never sent again.
    """

    lease_from_sending: bool = True
    returns_once: bool = True


KEEPS_RULES = ReplicaRules()


class _Lease(NamedTuple):
    """Hits that a replica may spend before `until`, or, not yet `held`, may begin to spend.

    `era` is what only the model knows: twice the resets before the grant, and one for a step forward.
    """

    hits: int
    until: int
    number: int
    epoch: int
    window: int
    era: int
    spend: int
    held: bool


class _Spent(NamedTuple):
    """What the law goes by: `hits` (of a bucket: the time of their refill); `when`: a window or an instant."""

    era: int
    when: int
    hits: int


class _Left(NamedTuple):
    """What may still happen."""

    takes: int
    duplicates: int
    returns: int
    resets: int
    resent: int


class _World(NamedTuple):
    """One state. Tuples are sorted, so that what is the same is written the same."""

    at: int
    stepped: int
    store: StoreState
    asks: tuple[int, ...]
    leases: tuple[_Lease, ...]
    returns: tuple[Lent, ...]
    spent: tuple[_Spent, ...]
    era: int
    left: _Left


_Step = tuple[str, _World]


class LeaseModel:
    """The protocol over one store, and what it promises."""

    def __init__(self, store: LeaseStore, schedule: Schedule, rules: ReplicaRules = KEEPS_RULES) -> None:
        self._store = store
        self._schedule = schedule
        self._rules = rules
        self._origin = -(-schedule.clock_step // store.window) * store.window
        # A store is a pure function, and is asked the same again and again.
        self._taken: dict[tuple[StoreState, int], tuple[StoreState, Granted]] = {}

    def explored(self, most: int = 200_000) -> Explored:
        """Explore every schedule."""
        plan = self._schedule
        left = _Left(plan.takes, plan.duplicates, plan.returns, plan.resets, not self._rules.returns_once)
        return explore(_World(0, 0, self._store.empty, (), (), (), (), 0, left), self._steps, self._breach, most)

    def _steps(self, world: _World) -> Iterator[_Step]:
        left = world.left
        if world.at + 1 < len(self._schedule.instants):
            yield "time passes", self._later(world)
        if self._schedule.clock_step and not world.stepped:
            for step in (self._schedule.clock_step, -self._schedule.clock_step):
                yield f"clock steps by {step}", world._replace(stepped=step, era=world.era + (step > 0))
        if left.resets:
            state = self._store.reset(world.store, self._clock(world))
            after = world._replace(store=state, era=world.era + 2, left=left._replace(resets=left.resets - 1))
            yield "reset", after
        if left.takes:
            asks = tuple(sorted((*world.asks, self._now(world))))
            yield "take is sent", world._replace(asks=asks, left=left._replace(takes=left.takes - 1))
        for ask in set(world.asks):
            yield from self._executed(world, ask)
        for lease in set(world.leases):
            yield from self._used(world, lease)
        for lent in set(world.returns):
            state = self._store.give_back(world.store, self._clock(world), lent)
            yield f"{lent} is taken back", world._replace(store=state, returns=_without(world.returns, lent))
            if left.resent:
                yield f"{lent} is taken back, and sent again", world._replace(store=state, left=left._replace(resent=0))

    def _now(self, world: _World) -> int:
        return self._schedule.instants[world.at]

    def _clock(self, world: _World) -> int:
        """What the store's clock shows; never less than 0, and before a step its windows are the true ones."""
        return self._schedule.instants[world.at] + world.stepped + self._origin

    def _later(self, world: _World) -> _World:
        """Time passes; what can be of no use any more is dropped."""
        before, now = self._now(world), self._schedule.instants[world.at + 1]
        # A lease may be returned a little late.
        leases = tuple(one for one in world.leases if (one.until > before if one.held else one.until > now))
        asks = tuple(sent for sent in world.asks if sent + self._schedule.lease > now)
        if not self._rules.lease_from_sending:
            leases, asks = world.leases, world.asks
        return world._replace(at=world.at + 1, leases=leases, asks=asks, spent=self._aged(world.spent, before, now))

    def _executed(self, world: _World, ask: int) -> Iterator[_Step]:
        """A take reaches the store; its client may lose the answer and send it again."""
        key = (world.store, self._clock(world))
        if key not in self._taken:
            self._taken[key] = self._store.take(*key, self._schedule.want, self._schedule.lease)
        state, granted = self._taken[key]
        asks, leases, left = _without(world.asks, ask), world.leases, world.left
        if granted.hits:
            until = ask + granted.spend
            lease = _Lease(
                granted.hits, until, granted.number, granted.epoch, granted.window, world.era, granted.spend, held=False
            )
            leases = tuple(sorted((*leases, lease)))
        yield f"take of {ask} is executed: {granted}", world._replace(store=state, asks=asks, leases=leases)
        if left.duplicates and granted.hits:
            yield (
                f"take of {ask} is executed: {granted}, and sent again",
                world._replace(store=state, left=left._replace(duplicates=left.duplicates - 1)),
            )

    def _used(self, world: _World, lease: _Lease) -> Iterator[_Step]:
        """An answer arrives, or one hit is spent, or the rest is given back."""
        now, left, rest = self._now(world), world.left, _without(world.leases, lease)
        if not lease.held:
            until = lease.until if self._rules.lease_from_sending else now + lease.spend
            leases = tuple(sorted((*rest, lease._replace(held=True, until=until, spend=0))))
            yield f"answer of {lease.hits} arrives", world._replace(leases=leases)
            return
        if now < lease.until:
            kept = lease._replace(hits=lease.hits - 1)
            leases = tuple(sorted((*rest, kept))) if kept.hits else rest
            yield "hit is spent", world._replace(leases=leases, spent=self._with(world.spent, now, lease))
        if left.returns:
            lent = Lent(lease.hits, lease.number, lease.epoch, lease.window)
            returns = tuple(sorted((*world.returns, lent)))
            less = left._replace(returns=left.returns - 1)
            yield f"{lent} is given back", world._replace(leases=rest, returns=returns, left=less)

    def _with(self, spent: tuple[_Spent, ...], now: int, lease: _Lease) -> tuple[_Spent, ...]:
        store, counts = self._store, {(era, when): hits for era, when, hits in spent}
        match store.algorithm:
            case Algorithm.FIXED_WINDOW:
                # A true window is written as a negative number. A step forward makes no era: a window is a window.
                spots, weight = [(lease.era // 2, lease.window), (lease.era // 2, -1 - now // store.window)], 1
            case Algorithm.SLIDING_WINDOW:
                spots, weight = [(lease.era, now)], 1
            case Algorithm.TOKEN_BUCKET:
                spots, weight = [(lease.era // 2, 0)], store.window
        for spot in spots:
            counts[spot] = counts.get(spot, 0) + weight
        return tuple(sorted(_Spent(era, when, hits) for (era, when), hits in counts.items()))

    def _aged(self, spent: tuple[_Spent, ...], before: int, now: int) -> tuple[_Spent, ...]:
        """What still counts for the law at `now`."""
        store = self._store
        match store.algorithm:
            case Algorithm.FIXED_WINDOW:
                return tuple(one for one in spent if one.when >= 0 or -1 - one.when == now // store.window)
            case Algorithm.SLIDING_WINDOW:
                return tuple(one for one in spent if one.when >= now - store.window)
            case Algorithm.TOKEN_BUCKET:
                refilled = now - before
                return tuple(one._replace(hits=one.hits - refilled) for one in spent if one.hits > refilled)

    def _breach(self, world: _World) -> str:
        store = self._store
        if store.algorithm is Algorithm.FIXED_WINDOW:
            over = any(one.hits > store.limit and (one.when >= 0 or not world.stepped) for one in world.spent)
            return f"{world.spent} in windows of {store.limit}" if over else ""
        most = store.limit
        if store.algorithm is Algorithm.TOKEN_BUCKET:
            most = store.limit * store.window + max(0, min(world.stepped, store.limit * store.window))
        sums: dict[int, int] = {}
        for one in world.spent:
            sums[one.era] = sums.get(one.era, 0) + one.hits
        return f"{world.spent} in an interval of {most}" if max(sums.values(), default=0) > most else ""


def _without(items: tuple[_Item, ...], item: _Item) -> tuple[_Item, ...]:
    at = items.index(item)
    return items[:at] + items[at + 1 :]
