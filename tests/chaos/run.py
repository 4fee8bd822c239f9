"""Every fault in every world: `python -m tests.chaos.run [--out build/bench] [--only single-stores]`.

Prints a table and keeps figures as JSON; exits with 1 where something went beyond what it may.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import machine, tables
from chaos.campaign import Campaign, Phase
from chaos.faults import FAULTS
from chaos.worlds import Redis, Setting, running

SETTINGS: Final = (
    *(Setting(redis, services) for redis in Redis for services in (False, True)),
    Setting(Redis.SINGLE, services=False, new_master="Quarantine"),
    Setting(Redis.SENTINEL, services=False, durability="Wait"),
)


class Row(msgspec.Struct, frozen=True):
    """A phase in a table. By mode: the worst law, hits beyond it, and what may be by the gauges."""

    setting: str
    fault: str
    calls: int
    admitted: int
    closed: str
    reserved: str
    share: str
    p99_ms: float
    max_ms: float
    over_50_ms: int
    recovered_s: float | None
    verdict: str


def row(phase: Phase) -> Row:
    """A phase as it is shown."""
    by_mode = {each.mode: f"{each.excess} of {each.allowed} ({each.law})" for each in phase.judged}
    return Row(
        phase.setting, phase.fault, phase.calls, phase.admitted, by_mode["Closed"], by_mode["Reserved"],
        by_mode["Share"], phase.p99_ms, phase.max_ms, phase.over_50_ms, phase.recovered_s,
        "; ".join(phase.problems()) or "good",
    )  # fmt: skip


async def phases_of(setting: Setting, only: str) -> list[Phase]:
    """Every fault that fits a setting, one after another in one world."""
    faults = [fault for fault in FAULTS if fault.fits(setting) and only in fault.name]
    with tempfile.TemporaryDirectory(prefix="tidegate-chaos-") as folder:
        async with running(setting, Path(folder)) as world:
            campaign = Campaign(world)
            phases = []
            for fault in faults:
                phases.append(await campaign.run(fault))
                print(f"{setting.name}: {fault.name}: {'; '.join(phases[-1].problems()) or 'good'}", flush=True)
    return phases


def main() -> int:
    """Run, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("--fault", default="", help="faults whose name contains this")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    phases: list[Phase] = []
    for setting in SETTINGS:
        if options.only in setting.name:
            phases += asyncio.run(phases_of(setting, options.fault))
    tables.show("excess over the law by mode, and what it may be", [row(phase) for phase in phases])
    machine.write(options.out / "chaos.json", {"phases": msgspec.to_builtins(phases)})
    return int(any(phase.problems() for phase in phases))


if __name__ == "__main__":
    sys.exit(main())
