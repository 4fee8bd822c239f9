"""Every schedule of standing allowances: slots that replicas hold, and hits of a fixed window spent without asking.

A window of the store has `limit` hits; each slot owns some of them, by the *form* (slots and share) that is in force,
and the rest are granted by takes, which are spent at once here. Explored: slots that end while their holder still
counts, restarts, keys that were evicted, reloads, a form that changes, and replicas whose clocks are off.

Promised: at most `limit` hits are spent in each window of the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from support.explore import Explored, explore

WINDOW = 5
TTL = 2
ERROR = 1
SLOTS = 2
LIMIT = 4
OWNED = (0, 1, 2)
"""What a slot owns in a window, by form."""


class StandingRules(NamedTuple):
    """What replicas and the store keep to; False: planted.

    Attributes:
        guards_edges: Nothing is spent without asking within the error of clocks around the edge of a window.
        holder_waits: A slot owns nothing in windows that began before its holder took it.
        eviction_taints: A key whose count was dropped owns nothing until the next window.
        form_waits: The form changes only when nobody holds the old one any more.
        only_form_in_force_owns: A replica that goes by another form than the one in force owns nothing.
        takes_leave_reserve: Grants leave alone what slots own.
        keeps_reserve: The store keeps the greatest reserve of its window, whoever asks later.
        counts_outlive_reloads: What was spent is counted by the limit, not by the snapshot that it came with.
        reserves_most_in_doubt: A take reserves what any form may own, unless its replica is surely in form, and the
            window began after that form came into force.
        shareless_doubt: Replicas whose form owns nothing do so too; the store does not keep their reserve.
    """

    guards_edges: bool = True
    holder_waits: bool = True
    eviction_taints: bool = True
    form_waits: bool = True
    only_form_in_force_owns: bool = True
    takes_leave_reserve: bool = True
    keeps_reserve: bool = True
    counts_outlive_reloads: bool = True
    reserves_most_in_doubt: bool = True
    shareless_doubt: bool = True


class Events(NamedTuple):
    """How often each may happen in one run.

    Attributes:
        ticks: Instants.
        errors: By how much the replicas' clocks are off.
        forms: The form that there is at the start, and the new one.
    """

    ticks: int = 9
    errors: tuple[int, int] = (0, 0)
    restarts: int = 0
    evictions: int = 0
    reloads: int = 0
    new_forms: int = 0
    forms: tuple[int, int] = (1, 2)


class _Replica(NamedTuple):
    """`spent` counts in the window that its clock shows; `first` is the first in which its slot owns anything.

    `sure` is the first that began after its form came into force.
    """

    name: int
    error: int
    form: int
    slot: int = -1
    first: int = 0
    sure: int = 0
    until: int = 0
    spent: int = 0
    is_tainted: bool = False


class _Store(NamedTuple):
    """`slots`: (holder, end) of each; `form`: (form, end, first window begun since); the rest is of this window."""

    slots: tuple[tuple[int, int], ...]
    form: tuple[int, int, int]
    granted: int
    reserve: int


class _World(NamedTuple):
    """`spent`: hits in the store's window."""

    now: int
    store: _Store
    replicas: tuple[_Replica, ...]
    spent: int
    left: Events


_Step = tuple[str, _World]
_FREE = (-1, 0)
_NO_FORM = (-1, 0, 0)


class StandingModel:
    """Two replicas, and what they promise together."""

    def __init__(self, rules: StandingRules, events: Events) -> None:
        self._rules = rules
        self._events = events

    def explored(self, most: int = 200_000) -> Explored:
        """Explore every schedule."""
        replicas = tuple(_Replica(name, error, self._events.forms[0]) for name, error in enumerate(self._events.errors))
        store = _Store((_FREE,) * SLOTS, _NO_FORM, 0, 0)
        return explore(_World(0, store, replicas, 0, self._events), self._steps, self._breach, most)

    @staticmethod
    def _breach(world: _World) -> str:
        return f"{world.spent} hits in a window" if world.spent > LIMIT else ""

    def _steps(self, world: _World) -> Iterator[_Step]:
        if world.now < world.left.ticks:
            yield "time passes", _later(world)
        for at, replica in enumerate(world.replicas):
            for name, after in self._replica_steps(world, replica, at):
                yield f"{name} ({at})", after

    def _replica_steps(self, world: _World, replica: _Replica, at: int) -> Iterator[_Step]:
        left, now = world.left, world.now

        def put(changed: _Replica, **changes: object) -> _World:
            replicas = sorted((*world.replicas[:at], changed, *world.replicas[at + 1 :]))
            return world._replace(replicas=tuple(replicas), **changes)  # type: ignore[arg-type]

        beaten, store = self._beaten(world, replica)
        yield "heartbeat", put(beaten, store=store)
        if self._may_spend(replica, now) and replica.spent < OWNED[replica.form]:
            yield "own hit", put(replica._replace(spent=replica.spent + 1), spent=world.spent + 1)
        granted = self._taken(world, replica)
        if granted is not None:
            yield "taken hit", put(replica, store=granted, spent=world.spent + 1)
        name = 1 + max(*(one.name for one in world.replicas), *(holder for holder, _ in world.store.slots))
        if left.restarts:
            fresh = _Replica(name, replica.error, replica.form)
            yield "restart", put(fresh, left=left._replace(restarts=left.restarts - 1))
        if left.evictions and replica.spent:
            evicted = replica._replace(spent=0, is_tainted=self._rules.eviction_taints)
            yield "eviction", put(evicted, left=left._replace(evictions=left.evictions - 1))
        if left.reloads:
            reloaded = replica if self._rules.counts_outlive_reloads else replica._replace(spent=0)
            yield "reload", put(reloaded, left=left._replace(reloads=left.reloads - 1))
        if left.new_forms and replica.form == left.forms[0]:
            # Its process starts anew with another share, and holds nothing.
            other = _Replica(name, replica.error, left.forms[1])
            yield "new form", put(other, left=left._replace(new_forms=left.new_forms - 1))

    def _beaten(self, world: _World, replica: _Replica) -> tuple[_Replica, _Store]:
        """A heartbeat, as `membership.lua` has it, and what the replica makes of its answer."""
        now, store = world.now, world.store
        is_same = store.form[0] == replica.form
        in_form = is_same or store.form == _NO_FORM or not self._rules.form_waits
        sure = store.form[2] if is_same else -(-now // WINDOW)
        form = (replica.form, now + TTL, sure) if in_form else store.form
        slots = list(store.slots)
        holders = [holder for holder, _ in slots]
        slot = next((holders.index(wanted) for wanted in (replica.name, -1) if wanted in holders), -1)
        if slot >= 0:
            slots[slot] = (replica.name, now + TTL)
        after = store._replace(slots=tuple(slots), form=form)
        if slot < 0 or (self._rules.only_form_in_force_owns and not in_form):
            return replica._replace(slot=-1, first=0, sure=0, until=0), after
        first = replica.first
        if replica.slot != slot or now >= replica.until:
            # Another's slot, or its own that it had lost meanwhile: a window is to begin surely after now.
            first = -(-(now + 2 * ERROR) // WINDOW)
        return replica._replace(slot=slot, first=first, sure=sure, until=now + TTL), after

    def _may_spend(self, replica: _Replica, now: int) -> bool:
        rules, at = self._rules, now + replica.error
        begins = at // WINDOW * WINDOW
        if replica.slot < 0 or replica.is_tainted:
            return False
        if rules.guards_edges and (at - begins < ERROR or begins + WINDOW - at <= ERROR):
            return False
        return not rules.holder_waits or begins >= replica.first * WINDOW

    def _taken(self, world: _World, replica: _Replica) -> _Store | None:
        """The store after it granted one hit to be spent at once; None: it does not."""
        store = world.store
        is_sure = replica.slot >= 0 and world.now // WINDOW >= replica.sure
        doubts = self._rules.reserves_most_in_doubt and (self._rules.shareless_doubt or OWNED[replica.form] > 0)
        owned = max(OWNED) if doubts and not is_sure else OWNED[replica.form]
        left_alone = max(store.reserve if self._rules.keeps_reserve else 0, SLOTS * owned)
        if not self._rules.takes_leave_reserve:
            left_alone = 0
        if store.granted + left_alone >= LIMIT:
            return None
        # The store keeps the greatest reserve of its window that those who own something asked for.
        kept = left_alone if OWNED[replica.form] else store.reserve
        return store._replace(granted=store.granted + 1, reserve=kept)


def _later(world: _World) -> _World:
    """Time passes; what has ended is written as if it had never been."""
    now, store = world.now + 1, world.store
    slots = tuple((holder, end) if end > now else _FREE for holder, end in store.slots)
    form = store.form if store.form[1] > now else _NO_FORM
    store, spent = store._replace(slots=slots, form=form), world.spent
    if now % WINDOW == 0:
        store, spent = store._replace(granted=0, reserve=0), 0
    replicas = tuple(sorted(_older(replica, now) for replica in world.replicas))
    return world._replace(now=now, store=store, replicas=replicas, spent=spent)


def _older(replica: _Replica, now: int) -> _Replica:
    if (now + replica.error) % WINDOW == 0:
        replica = replica._replace(spent=0, is_tainted=False)
    if replica.until <= now:
        return replica._replace(slot=-1, first=0, sure=0, until=0)
    return replica
