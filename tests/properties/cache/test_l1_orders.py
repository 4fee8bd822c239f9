"""Each eviction policy against a plain reading of it, whatever is put, asked for, deleted, swept and evicted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from ratelimit_service.cache.entry import NEVER_US, NO_TERMS, Entry
from ratelimit_service.cache.l1.eviction import ASKED, GONE, Order
from ratelimit_service.cache.l1.lru import Lru
from ratelimit_service.cache.l1.s3fifo import S3Fifo
from ratelimit_service.cache.l1.second_chance import SecondChance
from ratelimit_service.cache.l1.sieve import Sieve
from support.plain_orders import PlainClock, PlainLru, PlainOrder, PlainS3Fifo, PlainSieve

MAX_ENTRIES = 12

Step = tuple[str, int]
NewOrder = Callable[[], Order[int]]
NewPlain = Callable[[int], PlainOrder]

POLICIES: dict[str, tuple[NewOrder, NewPlain]] = {
    "s3-fifo": (lambda: S3Fifo(MAX_ENTRIES), PlainS3Fifo),
    "sieve": (Sieve, PlainSieve),
    "clock": (SecondChance, PlainClock),
    "lru": (Lru, PlainLru),
}

# Each law is held for four policies.
fewer = settings(max_examples=settings.default.max_examples // 2)

# Few keys, so that they come back; many puts, so that there is something to evict.
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "ask", "delete", "evict", "sweep", "settle"]), st.integers(0, 20)),
    max_size=80,
)


class Player:
    """Plays steps on a policy and on its plain reading, and holds what they do together."""

    def __init__(self, order: Order[int], plain: PlainOrder) -> None:
        self.order = order
        self.plain = plain
        self.keys: set[str] = set()

    def ask(self, number: int) -> None:
        """A get; on a miss a put, after an eviction where the level is full. Every fourth key expires at 1."""
        key = f"key-{number}"
        entry = self.order.entries.get(key)
        if entry is not None:
            entry.marks |= ASKED
            if self.order.touch is not None:
                self.order.touch(key)
            self.plain.hit(key)
            return
        if len(self.keys) == MAX_ENTRIES:
            self.evict(2)
        entry = Entry(key, number, 1 if number % 4 == 0 else NEVER_US, 1 + number, 0, NO_TERMS)
        self.order.entries[key] = entry
        self.order.arrivals.append(entry)
        self.plain.put(key)
        self.keys.add(key)

    def delete(self, number: int) -> None:
        """A delete of a key that may be in."""
        key = f"key-{number}"
        if key in self.keys:
            entry = self.order.entries[key]
            self.order.remove(entry)
            assert entry.marks == GONE
            self.plain.remove(key)
            self.keys.remove(key)

    def evict(self, number: int) -> None:
        """Up to three evictions in one batch."""
        count = 1 + number % 3
        before = dict(self.order.entries)
        freed_bytes = self.order.evict(count)
        self.plain.settle()
        gone = {self.plain.evict() for _ in range(min(count, len(self.keys)))}
        self.keys -= gone

        assert set(before) - set(self.order.entries) == gone
        assert freed_bytes == sum(before[key].size_bytes for key in gone)
        assert all(before[key].marks == GONE for key in gone)

    def sweep(self, number: int) -> None:
        """A look through a page or a few."""
        for _ in range(1 + number % 3):
            expired, _ = self.order.sweep(now_us=1)
            self.plain.settle()
            for entry in expired:
                assert entry.expires_us == 1
                self.plain.remove(entry.key)
                self.keys.remove(entry.key)

    def settle(self, number: int) -> None:
        """What the level does every hundred puts."""
        self.order.settle()
        self.plain.settle()


def follows_the_plain_reading(order: Order[int], plain: PlainOrder, played: list[Step]) -> None:
    """The law: the same keys are in after every step, and at the end they go in the same order."""
    player = Player(order, plain)
    for name, number in played:
        getattr(player, name)(number)
        assert set(order.entries) == player.keys
    while player.keys:
        player.evict(0)

    assert order.evict(1) == 0


@pytest.mark.parametrize("policy", POLICIES)
@fewer
@given(played=steps)
@example(played=[("ask", number % 17) for number in range(100)])
@example(played=[("ask", 1), ("evict", 0), ("ask", 1), ("delete", 1), ("ask", 1), ("sweep", 2), ("evict", 0)])
def test_policy_goes_by_its_paper(policy: str, played: list[Step]) -> None:
    """Whatever happens, the keys that go are those that the plain reading gives up, in its order."""
    new_order, new_plain = POLICIES[policy]

    follows_the_plain_reading(new_order(), new_plain(MAX_ENTRIES), played)


@pytest.mark.parametrize("policy", POLICIES)
def test_rounds_of_sweeps_leave_nothing_expired(policy: str) -> None:
    """Between two ends of a round every entry is looked at, in whatever queue it stands."""
    order = POLICIES[policy][0]()
    for number in range(1_000):
        key = f"key-{number}"
        entry = order.entries[key] = Entry(key, number, 1 if number % 3 else NEVER_US, 1, 0, NO_TERMS)
        order.arrivals.append(entry)
        entry.marks += ASKED * (number % 2)
        if number % 100 == 99:
            order.settle()
            order.evict(1)
    left = len(order.entries)
    expired = 0
    for _ in range(2):
        is_end = False
        while not is_end:
            found, is_end = order.sweep(now_us=1)
            expired += len(found)

    assert [entry for entry in order.entries.values() if entry.expires_us == 1] == []
    assert expired == left - len(order.entries) > 600
    assert order.evict(1_000) == left - expired


class ForgetsHits(S3Fifo[int]):
    """Bug: what was asked for in the small queue goes all the same."""

    def settle(self) -> None:
        for entry in self.entries.values():
            entry.marks &= ~ASKED
        super().settle()


class RemembersNothing(S3Fifo[int]):
    """Bug: a key that comes back begins in the small queue again."""

    def evict(self, count: int) -> int:
        freed_bytes = super().evict(count)
        self._ghosts.slots = type(self._ghosts.slots)("q", bytes(8 * len(self._ghosts.slots)))
        return freed_bytes


class MiscountsDeleted(S3Fifo[int]):
    """Bug: what is deleted from the small queue goes on counting in its share."""

    def remove(self, entry: Entry[int]) -> None:
        before = self._small_entries
        super().remove(entry)
        self._small_entries = before


class TurnsTheHandBack(Sieve[int]):
    """Bug: the hand begins at the oldest each time."""

    def settle(self) -> None:
        super().settle()
        self._ahead, self._behind = self._behind, self._ahead


class GivesNoSecondChance(SecondChance[int]):
    """Bug: marks are not looked at."""

    def settle(self) -> None:
        super().settle()
        for entry in self.entries.values():
            entry.marks = 0


class NeverTouches(Lru[int]):
    """Bug: the order is that of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.touch = None


@pytest.mark.parametrize(
    ("new_order", "new_plain"),
    [
        (lambda: ForgetsHits(MAX_ENTRIES), PlainS3Fifo),
        (lambda: RemembersNothing(MAX_ENTRIES), PlainS3Fifo),
        (lambda: MiscountsDeleted(MAX_ENTRIES), PlainS3Fifo),
        (TurnsTheHandBack, PlainSieve),
        (GivesNoSecondChance, PlainClock),
        (NeverTouches, PlainLru),
        (SecondChance, PlainLru),
    ],
)
def test_plain_reading_catches_planted_bug(new_order: NewOrder, new_plain: NewPlain) -> None:
    """Each planted bug breaks the law, and no policy passes for another."""

    @settings(max_examples=2_000, database=None, derandomize=True, report_multiple_bugs=False, phases=[Phase.generate])
    @given(played=steps)
    def law(played: list[Step]) -> None:
        follows_the_plain_reading(new_order(), new_plain(MAX_ENTRIES), played)

    with pytest.raises((AssertionError, IndexError, KeyError)):
        law()
