"""Whole replicas in seeded simulations: no run goes beyond its bound, and what is planted is found.

`python -m tests.simulate --seeds 100000` runs as many as one likes; `TIDEGATE_SEEDS` says how many are run here.
"""

from __future__ import annotations

import os

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm
from ratelimit_service.quota.redis.twin import Answer, Refusal
from ratelimit_service.quota.takes import Grant, Order, Return, Take
from support.simulated_network import NetworkOrders
from support.simulated_store import SimulatedStore
from support.simulation import Run, simulate

SEEDS = int(os.environ.get("TIDEGATE_SEEDS", "500"))
SLICES = 5


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_no_run_goes_beyond_its_bound(part: int) -> None:
    """0 for Closed and Reserved, unless the store's memory is lost; else what the replicas themselves say."""
    bad = [seed for seed in range(part, SEEDS, SLICES) if not simulate(seed).is_good]

    assert not bad, f"python -m tests.simulate --first {bad[0]} --seeds 1"


def test_run_of_a_seed_is_always_the_same() -> None:
    """So that a failing seed can be looked at."""
    assert simulate(23) == simulate(23)
    assert simulate(23).calls > 0


def test_runs_admit_most_of_what_they_may() -> None:
    """A simulation in which everything is denied would prove nothing."""
    verdicts = [simulate(seed) for seed in range(9, 12)]

    assert sum(verdict.admitted for verdict in verdicts) >= sum(verdict.plan.limit.burst for verdict in verdicts)


class ReturnsTwice(NetworkOrders):
    """Planted: a return is sent again although it may have arrived."""

    def executed(self, order: Order) -> Answer:
        if isinstance(order, Return):
            super().executed(order)
        return super().executed(order)


class LeasesFromAnswers(NetworkOrders):
    """Planted: leases are measured from the answer."""

    def heard(self, answer: Answer, boot: int, sent_us: int) -> tuple[int, bool]:
        return super().heard(answer, boot, self.process.read().boot_us)


class TrustsAnyMemory(NetworkOrders):
    """Planted: nobody asks whether the store still has the memory that it had."""

    def knows(self, boot: int) -> bool:
        return True


def spoiled(answer: Answer, spend_us: int) -> Answer:
    """Grants that may be spent for as long as that, whatever the store says."""
    assert not isinstance(answer, Refusal)
    return [_longer(grant, spend_us * (grant.granted > 0)) for grant in answer]


def _longer(grant: Grant, spend_us: int) -> Grant:
    return msgspec.structs.replace(grant, spend_us=max(grant.spend_us, spend_us))


class ChargesEarly(SimulatedStore):
    """Planted: a take of a sliding window or bucket is charged at the earliest."""

    def execute(self, order: Order) -> Answer:
        if isinstance(order, Take) and order.asks[0].limit.algorithm is not Algorithm.FIXED_WINDOW:
            return spoiled(super().execute(msgspec.structs.replace(order, lease_us=0)), order.lease_us)
        return super().execute(order)


class GrantsOutliveWindows(SimulatedStore):
    """Planted: a grant may be spent when its window is over."""

    def execute(self, order: Order) -> Answer:
        answer = super().execute(order)
        return spoiled(answer, order.lease_us) if isinstance(order, Take) else answer


class KeepsNoReserve(SimulatedStore):
    """Planted: the store lends what standing allowances own."""

    def execute(self, order: Order) -> Answer:
        if isinstance(order, Take):
            asks = tuple(msgspec.structs.replace(ask, reserve=0) for ask in order.asks)
            return super().execute(msgspec.structs.replace(order, asks=asks))
        return super().execute(order)


@pytest.mark.slow
@pytest.mark.parametrize("carry", [ReturnsTwice, LeasesFromAnswers, TrustsAnyMemory])
def test_bug_of_a_replica_is_found(carry: type[NetworkOrders]) -> None:
    """By one of the seeds that are run above."""
    assert any(not Run(seed, carry=carry).judged().is_good for seed in range(500))


@pytest.mark.slow
@pytest.mark.parametrize("store", [ChargesEarly, GrantsOutliveWindows, KeepsNoReserve])
def test_bug_of_the_store_is_found(store: type[SimulatedStore]) -> None:
    """By one of the seeds that are run above."""
    assert any(not Run(seed, store=store).judged().is_good for seed in range(500))
