"""Every schedule of standing allowances of limits without an edge: sliding windows and buckets.

Two replicas compete for one slot, which owns one hit of a limit of two; the other is granted by takes, which are spent
at once here. Time is what has passed, so clocks have no error, and a later window forgives nothing: what an earlier
holder of the slot spent still counts when the next one comes. `standing_model` is the same for fixed windows.

Promised: of a sliding window, at most the limit in each closed interval as long as the window; of a bucket, burst +
rate · t in any interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ratelimit_service.algorithms.limit import Algorithm
from support.explore import Explored, explore

WINDOW = 4
TTL = 2
LIMIT = 2
OWNED = 1

Count = tuple[int, ...]
"""Ages of what still counts; of a bucket, how long each hit of the backlog takes to refill: `WINDOW`, or less."""


class RollingRules(NamedTuple):
    """What replicas and the store keep to; False: planted.

    Attributes:
        holder_waits: A new holder owns nothing for a window; of a bucket, it begins with an empty one.
        takes_leave_reserve: Grants leave alone what the slot owns.
        keeps_own_law: A replica judges its own hits by the limit's law, not by windows that begin anew.
        eviction_taints: A key whose count was dropped owns nothing for a window.
        counts_outlive_reloads: What was spent is counted by the limit, not by the snapshot that it came with.
    """

    holder_waits: bool = True
    takes_leave_reserve: bool = True
    keeps_own_law: bool = True
    eviction_taints: bool = True
    counts_outlive_reloads: bool = True


KEEPS_RULES = RollingRules()


class _Replica(NamedTuple):
    """`until`: the slot is held before it, 0: it is not; `rests`: for how long it owns nothing yet."""

    name: int
    until: int = 0
    rests: int = 0
    spent: Count = ()


class _World(NamedTuple):
    """`slot`: its holder, and when it ends. Counts are ages, so that what is the same is written the same."""

    now: int
    slot: tuple[int, int]
    granted: Count
    replicas: tuple[_Replica, ...]
    spent: Count
    evictions: int
    reloads: int


_FREE = (-1, 0)


class RollingModel:
    """Two replicas, and what they promise together."""

    def __init__(
        self, algorithm: Algorithm, rules: RollingRules = KEEPS_RULES, *, ticks: int = 10, losses: int = 1
    ) -> None:
        self._is_bucket = algorithm is Algorithm.TOKEN_BUCKET
        self._rules = rules
        self._ticks = ticks
        self._losses = losses

    def explored(self, most: int = 200_000) -> Explored:
        """Explore every schedule."""
        replicas = (_Replica(0), _Replica(1))
        start = _World(0, _FREE, (), replicas, (), self._losses, self._losses)
        return explore(start, self._steps, self._breach, most)

    def _breach(self, world: _World) -> str:
        # Of a bucket, what is not refilled yet; each hit of the whole limit refills in a part of the window.
        most = WINDOW if self._is_bucket else LIMIT
        held = -(-sum(world.spent) // LIMIT) if self._is_bucket else len(world.spent)
        return f"{world.spent} of {LIMIT} a window" if held > most else ""

    def _steps(self, world: _World) -> Iterator[tuple[str, _World]]:
        if world.now < self._ticks:
            yield "time passes", self._later(world)
        owned = OWNED if self._rules.takes_leave_reserve else 0
        if self._room(world.granted, LIMIT - owned):
            yield "taken hit", world._replace(granted=self._with(world.granted), spent=self._with(world.spent))
        for replica in world.replicas:
            for name, after in self._replica_steps(world, replica):
                yield f"{name} ({replica.name})", after

    def _replica_steps(self, world: _World, replica: _Replica) -> Iterator[tuple[str, _World]]:
        def put(changed: _Replica, **changes: object) -> _World:
            others = [changed if one.name == changed.name else one for one in world.replicas]
            return world._replace(replicas=tuple(others), **changes)  # type: ignore[arg-type]

        if world.slot[0] in {-1, replica.name}:
            is_new = replica.until <= world.now
            rests = WINDOW + 1 if is_new and self._rules.holder_waits else replica.rests
            held = replica._replace(until=world.now + TTL, rests=rests)
            yield "heartbeat", put(held, slot=(replica.name, world.now + TTL))
        if replica.until > world.now and not replica.rests and self._room(replica.spent, OWNED):
            yield "own hit", put(replica._replace(spent=self._with(replica.spent)), spent=self._with(world.spent))
        if world.evictions and replica.spent:
            rests = WINDOW + 1 if self._rules.eviction_taints else replica.rests
            yield "eviction", put(replica._replace(spent=(), rests=rests), evictions=world.evictions - 1)
        if world.reloads and replica.spent:
            kept = replica.spent if self._rules.counts_outlive_reloads else ()
            yield "reload", put(replica._replace(spent=kept), reloads=world.reloads - 1)

    def _room(self, count: Count, most: int) -> bool:
        """Whether a hit more is within `most` a window."""
        if self._is_bucket:
            # Of `most` hits a window each refills in a part of it.
            return -(-sum(count) // most) + -(-WINDOW // most) <= WINDOW if most else False
        return len(count) < most

    def _with(self, count: Count) -> Count:
        return (*count, WINDOW) if self._is_bucket else tuple(sorted((*count, 0)))

    def _later(self, world: _World) -> _World:
        now = world.now + 1
        starts_anew = not self._rules.keeps_own_law and now % WINDOW == 0

        def older(replica: _Replica) -> _Replica:
            spent = () if starts_anew else self._aged(replica.spent, OWNED)
            return replica._replace(
                until=replica.until if replica.until > now else 0, rests=max(0, replica.rests - 1), spent=spent
            )

        return world._replace(
            now=now,
            slot=world.slot if world.slot[1] > now else _FREE,
            granted=self._aged(world.granted, LIMIT - OWNED if self._rules.takes_leave_reserve else LIMIT),
            replicas=tuple(older(replica) for replica in world.replicas),
            spent=self._aged(world.spent, LIMIT),
        )

    def _aged(self, count: Count, most: int) -> Count:
        """What still counts a tick later; a bucket of `most` hits a window refills as much of them in a tick."""
        if not self._is_bucket:
            return tuple(age + 1 for age in count if age < WINDOW)
        left, refilled = [], most
        for owed in count:
            taken = min(owed, refilled)
            refilled -= taken
            if owed > taken:
                left.append(owed - taken)
        return tuple(left)
