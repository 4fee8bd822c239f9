"""The cells of one replica: found by limit and key, bounded in number, given back when idle.

What is in hand decides here, at once; `Replica.charge` has the most frequent request written out. Everything else goes
through `requests`. A cell is only ever forgotten when nothing is lost by it: no hits in hand, no debt, no denial
and no take under way. Where there is no room for another one, the key is asked for exactly and not remembered.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import Instant, Limit, LimitSettings
from ratelimit_service.quota.leases.cell import Cell, InHand
from ratelimit_service.quota.leases.sizing import EXACT_LEASE_US, RoundTrip, idle_us, is_exact, length_us, patience_us
from ratelimit_service.quota.leases.stats import LeaseStats
from ratelimit_service.quota.store import Charge, Outcome, Role, Source
from ratelimit_service.quota.takes import CountedKey, Return

_ENFORCE: Final = Role.ENFORCE
_LEASE: Final = Source.LEASE
_SWEEP_CELLS: Final = 16
_LEAST_HORIZON_US: Final = 1_000


class LeaseSettings(msgspec.Struct, frozen=True):
    """How a replica leases.

    Attributes:
        exact: Take nothing in advance, whatever the limit.
        horizon_us: How far ahead a slice reaches.
        max_keys: Most cells held.
    """

    exact: bool = False
    horizon_us: int = 200_000
    max_keys: int = 1_000_000


class LeaseBook:
    """All cells of a replica.

    Attributes:
        replicas: Replicas alive, at least 1; divides slices.
        round_trip: How long the store takes.
        cells: By limit, then by key.
        wanted: Cells that should be refilled in the background; whoever drains it takes for them.
        stats: What happened.
        spent: Hits that were spent, at once or by requests that waited.
        exact: Requests of one exact charge that the store decided; kept apart since every one of them counts here.
    """

    def __init__(self, settings: LeaseSettings, group_of: Callable[[bytes], bytes]) -> None:
        """Make an empty book.

        Args:
            settings: How to lease.
            group_of: The rule's name in the store (`CountedKey.group`), from a limit's identity.
        """
        self.settings = settings
        self.replicas = 1
        self.round_trip = RoundTrip()
        self.wanted: list[Cell] = []
        self.stats = LeaseStats()
        self.spent = self.exact = 0
        self._group_of = group_of
        self._limits: Mapping[bytes, LimitSettings] = {}
        self.cells: dict[bytes, dict[bytes, Cell]] = {}
        self._groups: dict[bytes, bytes] = {}
        self._count = 0
        self._round: deque[Cell] = deque()
        self._due: list[tuple[int, int, Cell]] = []
        self._sequence = 0

    # The request path.

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome] | None:
        """Decide one request of enforced charges from what is in hand or denied; None: that does not decide it."""
        if len(charges) != 1:
            return self._charge_several(charges, now)
        (charge,) = charges
        cells = self.cells.get(charge.identity)
        if cells is None or charge.role is not _ENFORCE:
            return None
        cell = cells.get(charge.key)
        if cell is None:
            return None
        if cell.limit is not charge.limit:
            self._renumber(cell, charge.limit)
        outcome = self._decide_one(cell, charge.hits, now.boot_us)
        return None if outcome is None else (outcome,)

    def _decide_one(self, cell: Cell, hits: int, boot_us: int) -> Outcome | None:
        held = cell.held(boot_us)
        if hits > held or not held:
            if not cell.denies(hits, boot_us):
                return None
            if cell.is_doubtful(boot_us) and not cell.taking and not cell.exact:
                self.wanted.append(cell)
            return Outcome(True, 0, cell.wait_us(boot_us), cell.before(), _LEASE)
        before = cell.before()
        self.spent += cell.spend(hits, boot_us)
        if cell.left <= cell.refill_below and not cell.taking:
            self.wanted.append(cell)
        return msgspec.structs.replace(cell.allowed(boot_us), before=before)

    def _charge_several(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome] | None:
        """Decide a request of enforced charges on different counters that are all in hand."""
        boot_us = now.boot_us
        cells: list[Cell] = []
        for charge in charges:
            cell = self.cells.get(charge.identity, {}).get(charge.key)
            if cell is None or charge.role is not _ENFORCE or not charge.hits or cell in cells:
                return None
            if cell.limit is not charge.limit:
                self._renumber(cell, charge.limit)
            if cell.held(boot_us) < charge.hits:
                return None
            cells.append(cell)
        outcomes = []
        for cell, charge in zip(cells, charges, strict=True):
            before = cell.before()
            self.spent += cell.spend(charge.hits, boot_us)
            if cell.left <= cell.refill_below and not cell.taking:
                self.wanted.append(cell)
            outcomes.append(msgspec.structs.replace(cell.allowed(boot_us), before=before))
        return outcomes

    # Cells.

    def find(self, identity: bytes, key: bytes) -> Cell | None:
        """The cell of a counter, if it is remembered."""
        return self.cells.get(identity, {}).get(key)

    def cell(self, charge: Charge, now: Instant) -> Cell:
        """The cell of a charge, made if need be; one for which there is no room is not remembered."""
        cell = self.find(charge.identity, charge.key)
        if cell is None:
            where = self.where(charge.identity, charge.key)
            exact = self.is_exact(charge.identity, charge.limit)
            cell = Cell(charge.identity, where, charge.limit, now.boot_us, exact=exact)
            if self._count < self.settings.max_keys or self._make_room(now.boot_us):
                self.cells.setdefault(charge.identity, {})[charge.key] = cell
                self._count += 1
                self._round.append(cell)
            else:
                self.stats.overfull += 1
        elif cell.limit is not charge.limit:
            self._renumber(cell, charge.limit)
        return cell

    def remembers(self, cell: Cell) -> bool:
        """Whether a cell is one of the book's."""
        return self.find(cell.identity, cell.where.key) is cell

    def where(self, identity: bytes, key: bytes) -> CountedKey:
        """The counted key that a counter belongs to."""
        return CountedKey(self._group(identity), key)

    def _group(self, identity: bytes) -> bytes:
        group = self._groups.get(identity)
        if group is None:
            if len(self._groups) > len(self._limits) + 4_096:
                self._groups.clear()  # identities that descriptors carried; they are made again as they come
            group = self._groups[identity] = self._group_of(identity)
        return group

    def _renumber(self, cell: Cell, limit: Limit) -> None:
        """Another limit is in force: what was denied under the old one is asked again; what is in hand may be spent."""
        if cell.limit != limit:
            cell.denied_hits = 0
            cell.exact = self.is_exact(cell.identity, limit)
        cell.limit = limit

    def _make_room(self, now_us: int) -> bool:
        """Forget an idle cell, looking at a few."""
        return any(self._forget_next(now_us) for _ in range(min(_SWEEP_CELLS, len(self._round))))

    def _forget_next(self, now_us: int) -> bool:
        """Look at the next cell in the round, and forget it if it is idle."""
        cell = self._round.popleft()
        if cell.is_idle(now_us):
            self._forget(cell)
            return True
        self._round.append(cell)
        return False

    def forget_idle(self, now_us: int, budget: int) -> int:
        """Look at up to `budget` cells and forget those that are idle; return how many were looked at."""
        seen = min(budget, len(self._round))
        for _ in range(seen):
            self._forget_next(now_us)
        return seen

    def _forget(self, cell: Cell) -> None:
        cells = self.cells[cell.identity]
        del cells[cell.where.key]
        if not cells and cell.identity not in self._limits:
            del self.cells[cell.identity]
        self._count -= 1

    def of_group(self, where: CountedKey) -> list[Cell]:
        """All remembered cells of a counted key."""
        found = (self.find(identity, where.key) for identity, group in self._groups.items() if group == where.group)
        return [cell for cell in found if cell is not None]

    def __iter__(self) -> Iterator[Cell]:
        return iter(tuple(self._round))

    def __len__(self) -> int:
        return self._count

    # Limits.

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """Take the limits in force. Leases stay good: law is the greatest limit anywhere (DECISIONS 12)."""
        known, self._limits = self._limits, limits
        for identity in {*known, *limits}:
            was, now = known.get(identity), limits.get(identity)
            if (was is not None and was.exact) != (now is not None and now.exact):
                for cell in self.cells.get(identity, {}).values():
                    cell.exact = self.is_exact(identity, cell.limit)

    def is_exact(self, identity: bytes, limit: Limit) -> bool:
        """Whether a counter is asked for request by request (DECISIONS 18)."""
        return self.settings.exact or is_exact(limit) or self.is_volatile(identity)

    def is_volatile(self, identity: bytes) -> bool:
        """Whether refunds or debts may move a counter at any time, so that no denial of it is remembered."""
        settings = self._limits.get(identity)
        return settings is not None and settings.exact

    def horizon_us(self, limit: Limit) -> int:
        """How far ahead slices of a limit reach: the setting, at most an eighth of the window (DECISIONS 18)."""
        return max(_LEAST_HORIZON_US, min(self.settings.horizon_us, length_us(limit) // 8))

    def patience_us(self, limit: Limit) -> int:
        """How far ahead a slice of a few hits reaches (`sizing.patience_us`)."""
        return patience_us(limit, self.horizon_us(limit))

    def _idle_us(self, cell: Cell) -> int:
        """How long what is in hand of a cell may lie untouched."""
        return idle_us(cell.rate, self.horizon_us(cell.limit), self.patience_us(cell.limit))

    # What comes and goes.

    def receive(self, cell: Cell, lease: InHand, now_us: int, *, exact: bool) -> list[Return]:
        """Keep a grant, or what is left of one; return what has to be sent back instead."""
        if not lease.left:
            return []
        if now_us >= lease.until_us or not self.remembers(cell):
            return [self._give_back(cell, lease, ended=now_us >= lease.until_us)]
        cell.receive(lease)
        cell.seen_in_hand = 0
        span_us = EXACT_LEASE_US if exact else self._idle_us(cell)
        self._look_again(cell, min(lease.until_us, now_us + span_us) if exact else now_us + span_us)
        return []

    def _look_again(self, cell: Cell, at_us: int) -> None:
        if not cell.queued:
            cell.queued = True
            self._sequence += 1
            heapq.heappush(self._due, (at_us, self._sequence, cell))

    def next_due_us(self) -> int | None:
        """Boot time at which `tick` has something to do."""
        return self._due[0][0] if self._due else None

    def tick(self, now_us: int, budget: int = 1_000) -> list[Return]:
        """Give back what was idle for the horizon; look at up to `budget` cells."""
        returns: list[Return] = []
        for _ in range(budget):
            if not self._due or self._due[0][0] > now_us:
                break
            cell = heapq.heappop(self._due)[2]
            cell.queued = False
            returns += self.prune(cell, now_us)
            in_hand = cell.left + cell.others
            if in_hand and in_hand == cell.seen_in_hand:
                returns += self.give_back(cell)
            elif in_hand:
                cell.seen_in_hand = in_hand
                self._look_again(cell, now_us + self._idle_us(cell))
        return returns

    def prune(self, cell: Cell, now_us: int) -> list[Return]:
        """Let go of what has ended. The window of a fixed window's slice has ended with it: nothing to return."""
        if not cell.left or (now_us < cell.until_us and not cell.behind):
            return []
        returns = []
        for lease in cell.drop(now_us):
            if lease.dies:
                self.stats.forfeited += lease.left
                self.stats.stranded += lease.left
            else:
                returns.append(self._give_back(cell, lease, ended=True))
        return returns

    def give_back(self, cell: Cell) -> list[Return]:
        """Return all that is in hand of a cell."""
        return [self._give_back(cell, lease, ended=False) for lease in cell.drop()]

    def _give_back(self, cell: Cell, lease: InHand, *, ended: bool) -> Return:
        self.stats.returned += lease.left
        if ended:
            self.stats.stranded += lease.left
        return cell.return_of(lease)

    def forfeit(self, cell: Cell) -> None:
        """Let go of all that is in hand without a return: it was reset, or its master is gone."""
        for lease in cell.drop():
            self.stats.forfeited += lease.left

    def release(self) -> list[Return]:
        """Return everything; the replica stops."""
        return [order for cell in self for order in self.give_back(cell)]
