"""Thousands of schedules of tasks that lock several keys: none deadlocks, and no key has two holders."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ratelimit_service.cache.locks import (
    CacheOperationLockManager,
    LockOrderViolated,
    LockTable,
    LockTimedOut,
    Ticket,
)
from support.virtual_time import run_virtually

KEYS: Final = "abcd"


class Job(msgspec.Struct, frozen=True):
    """A task, in virtual milliseconds."""

    keys: str
    comes_ms: int
    works_ms: int
    patience_ms: int
    cancelled_at_ms: int | None


jobs = st.lists(
    st.builds(
        Job,
        st.text(KEYS, min_size=1, max_size=3),
        st.integers(0, 5),
        st.integers(0, 8),
        st.integers(0, 20),
        st.none() | st.integers(0, 12),
    ),
    min_size=1,
    max_size=8,
)


class Witness:
    """Sees who works on which key."""

    def __init__(self) -> None:
        self.at_work: dict[str, int] = {}
        self.collisions: list[str] = []
        self.fences: dict[str, list[int]] = {}

    def enter(self, keys: str, fence: int) -> None:
        for key in set(keys):
            self.fences.setdefault(key, []).append(fence)
            self.at_work[key] = self.at_work.get(key, 0) + 1
            self.collisions.extend([key] * (self.at_work[key] > 1))

    def leave(self, keys: str) -> None:
        for key in set(keys):
            self.at_work[key] -= 1


async def _work(manager: CacheOperationLockManager, job: Job, witness: Witness) -> str:
    await asyncio.sleep(job.comes_ms / 1000)
    try:
        async with manager.lock_many(job.keys, timeout_ms=job.patience_ms) as grant:
            witness.enter(job.keys, grant.fence)
            try:
                await asyncio.sleep(job.works_ms / 1000)
            finally:
                witness.leave(job.keys)
    except LockTimedOut:
        return "late"
    return "done"


async def _play(work: list[Job]) -> tuple[Witness, list[object], CacheOperationLockManager]:
    manager, witness = CacheOperationLockManager(), Witness()
    tasks = [asyncio.create_task(_work(manager, job, witness)) for job in work]
    for task, job in zip(tasks, work, strict=True):
        if job.cancelled_at_ms is not None:
            asyncio.get_running_loop().call_later(job.cancelled_at_ms / 1000, task.cancel)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return witness, [each if isinstance(each, str) else type(each).__name__ for each in results], manager


@settings(max_examples=150)
@given(jobs)
@example([Job("ab", 0, 5, 20, None), Job("ba", 0, 5, 20, None)])
def test_no_schedule_deadlocks_and_no_key_has_two_holders(work: list[Job]) -> None:
    """Every task ends by its own work, patience or cancellation, and afterwards nothing is held or waited for."""
    witness, results, manager = run_virtually(_play(work))

    assert witness.collisions == []
    assert all(fences == sorted(set(fences)) for fences in witness.fences.values())
    assert set(results) <= {"done", "late", "CancelledError"}
    assert manager.stats().holders == {}
    assert manager.stats().waiters == 0


class _AsWritten(Ticket):
    """The planted bug: keys are taken as they were written."""

    def __init__(self, keys: str) -> None:
        super().__init__(keys)
        self.keys = tuple(keys)


@pytest.mark.parametrize(("kind", "is_free_at_last"), [(Ticket, True), (_AsWritten, False)])
def test_without_the_global_order_two_tickets_wait_for_each_other(kind: type[Ticket], is_free_at_last: bool) -> None:
    """Two holders leave to two tickets that want `ab` and `ba`: in one order both are served, else neither is."""
    table = LockTable()
    first, second, holds_a, holds_b = kind("ab"), kind("ba"), kind("a"), kind("b")
    for ticket in (holds_a, holds_b, first, second):
        table.ask(ticket)
    served = [ticket for leaver in (holds_a, holds_b, first, second) for ticket in table.leave(leaver)]

    assert (first in served and second in served) is is_free_at_last


def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    """Fairness: nobody is overtaken by one who asks for the same key later."""

    async def run() -> list[int]:
        manager = CacheOperationLockManager()
        order: list[int] = []

        async def work(number: int) -> None:
            async with manager.lock("k"):
                order.append(number)
                await asyncio.sleep(0.01)

        await asyncio.gather(*(work(number) for number in range(5)))
        return order

    assert run_virtually(run()) == [0, 1, 2, 3, 4]


def test_a_lost_holder_is_passed_over_and_sees_that_it_is_too_late() -> None:
    """After its time the lock goes to the next, with a greater fence; the first holder's grant is not current."""

    async def run() -> tuple[bool, bool, bool, int]:
        manager = CacheOperationLockManager()
        async with manager.lock("k", hold_ms=1_000) as lost:
            was_current = lost.is_current()
            async with asyncio.TaskGroup() as group:
                next_fence = group.create_task(_fence_of(manager, "k"))
                await asyncio.sleep(2)
                is_current = lost.is_current()
            return was_current, is_current, next_fence.result() > lost.fence, manager.stats().passed_over

    assert run_virtually(run()) == (True, False, True, 1)


async def _fence_of(manager: CacheOperationLockManager, key: str) -> int:
    async with manager.lock(key) as grant:
        return grant.fence


def test_a_task_that_asks_against_the_order_is_refused_at_once() -> None:
    """Nested locks go up; a task that holds `b` may not ask for `a`, nor for `b` again."""

    async def run() -> tuple[str, str, str]:
        manager = CacheOperationLockManager()
        async with manager.lock("b"):
            with pytest.raises(LockOrderViolated) as caught:
                async with manager.lock("a"):
                    pass
            with pytest.raises(LockOrderViolated):
                async with manager.lock("b"):
                    pass
            async with manager.lock("c") as grant:
                return caught.value.held, caught.value.wanted, grant.keys[0]

    assert run_virtually(run()) == ("b", "a", "c")


def test_no_keys_are_locked_at_once() -> None:
    """Nothing to hold is held."""

    async def run() -> bool:
        async with CacheOperationLockManager().lock_many(()) as grant:
            return grant.is_current()

    assert run_virtually(run())


def test_statistics_name_holders_and_count_waiters() -> None:
    """One holds, two wait: the numbers say so, and the time waited is counted."""

    async def run() -> tuple[list[str], int, int, int]:
        manager = CacheOperationLockManager()
        async with manager.lock("k"):
            waiting = [asyncio.create_task(_fence_of(manager, "k")) for _ in range(2)]
            await asyncio.sleep(1)
            now = manager.stats()
        await asyncio.gather(*waiting)
        after = manager.stats()
        return list(now.holders), now.waiters, after.granted, after.waited_us

    assert run_virtually(run()) == (["k"], 2, 3, 2_000_000)
