"""Real replicas, a real Redis, and what goes wrong with them: no law is broken by more than the gauges say.

A fixed slice runs by default; `TIDEGATE_CHAOS=all` (`make soak`) runs every fault in every world, as
`python -m tests.chaos.run` does, which keeps the figures too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from chaos.campaign import Campaign, Phase
from chaos.faults import FAULTS, Fault
from chaos.run import SETTINGS
from chaos.worlds import Redis, Setting, running

ALL = os.environ.get("TIDEGATE_CHAOS") == "all"
SLICE = {
    Setting(Redis.SINGLE, services=False): (
        "all links cut both ways", "server full", "wrong password", "flushed", "server killed",
        "server's clock a second back", "server's clock an hour on",
    ),
    Setting(Redis.SINGLE, services=True): ("link cut to the replica", "replica killed"),
    Setting(Redis.SENTINEL, services=False): ("link cut to the replica", "failover asked for"),
    Setting(Redis.CLUSTER, services=False): ("all links cut both ways", "failover asked for"),
}  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}
CASES = (
    [(setting, [each for each in FAULTS if each.fits(setting)]) for setting in SETTINGS]
    if ALL
    else [(setting, [BY_NAME[name] for name in names]) for setting, names in SLICE.items()]
)


async def phases_of(setting: Setting, faults: Sequence[Fault], folder: Path) -> list[Phase]:
    """The faults one after another in one world."""
    async with running(setting, folder) as world:
        campaign = Campaign(world)
        return [await campaign.run(fault) for fault in faults]


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "faults"), CASES, ids=[setting.name for setting, _ in CASES])
def test_faults_break_no_law(setting: Setting, faults: Sequence[Fault], tmp_path: Path) -> None:
    """0 beyond it for Closed and Reserved, else what the gauges say; nothing hangs, nothing crashes, all recovers."""
    phases = asyncio.run(phases_of(setting, faults, tmp_path))

    assert [(phase.fault, phase.problems()) for phase in phases if phase.problems()] == []
    assert all(phase.admitted for phase in phases)


@pytest.mark.slow
def test_replicas_that_count_apart_are_found_out(tmp_path: Path) -> None:
    """Planted: without a common count the modes that may not go beyond their law do."""
    (phase,) = asyncio.run(phases_of(Setting(Redis.SINGLE, services=False, apart=True), [BY_NAME["nothing"]], tmp_path))

    assert [judged.mode for judged in phase.judged if not judged.is_good][:2] == ["Closed", "Reserved"]
