"""The paged queue against a list."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.cache.entry import NEVER_US, NO_TERMS, Entry
from ratelimit_service.cache.l1.eviction import GONE
from ratelimit_service.cache.l1.pages import PAGE_ENTRIES, Pages

# Sizes around that of a page.
steps = st.lists(
    st.tuples(st.sampled_from(["extend", "append", "pop", "delete", "sweep"]), st.sampled_from([1, 3, 60, 127, 128])),
    max_size=40,
)


def pop(pages: Pages[None]) -> Entry[None] | None:
    """The oldest entry that is not gone."""
    while pages.head or pages.turn():
        entry = pages.head.pop()
        if entry.marks != GONE:
            return entry
    return None


@given(played=steps)
def test_pages_give_what_a_list_would(played: list[tuple[str, int]]) -> None:
    """In the order of arrival, without what was deleted or has expired; a round of sweeps leaves none of those."""
    pages: Pages[None] = Pages()
    kept: list[Entry[None]] = []
    numbers = itertools.count()

    def fresh() -> Entry[None]:
        number = next(numbers)
        return Entry(str(number), None, 1 if number % 5 == 0 else NEVER_US, 0, 0, NO_TERMS)

    for name, count in played:
        match name:
            case "extend":
                entries = [fresh() for _ in range(count)]
                pages.extend(entries)
                kept += entries
            case "append":
                kept.append(fresh())
                pages.append(kept[-1])
            case "pop":
                for _ in range(count):
                    assert pop(pages) is (kept.pop(0) if kept else None)
            case "delete":
                for entry in kept[::3][:count]:
                    entry.marks = GONE
                kept = [entry for entry in kept if entry.marks != GONE]
            case _:
                expired, _ = pages.sweep(now_us=1)
                assert all(entry.expires_us == 1 and entry.marks == GONE for entry in expired)
                assert all(entry in kept for entry in expired)
                kept = [entry for entry in kept if entry.marks != GONE]

    # The rest of a round, one that drops, one that joins thin pages.
    for _ in range(3):
        while not pages.sweep(now_us=1)[1]:
            pass
    left = [entry for entry in kept if entry.expires_us > 1]

    assert pages.structure_bytes() <= 1_216 * (3 + 2 * len(left) // PAGE_ENTRIES)
    assert [pop(pages) for _ in left] == left
    assert pop(pages) is None
