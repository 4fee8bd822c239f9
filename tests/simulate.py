"""Run many simulations: `python -m tests.simulate --seeds 100000`; a seed that fails can be run again alone."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support.simulation import Verdict, simulate

REPORT_EVERY_S = 10


def main() -> int:
    """Exit with 1 if a run went beyond its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    asked = parser.parse_args()
    began = reported = time.monotonic()
    bad = admitted = calls = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        verdict = simulate(seed)
        admitted += verdict.admitted
        calls += verdict.calls
        if not verdict.is_good:
            bad += 1
            print(_told(seed, verdict), flush=True)
        if time.monotonic() - reported > REPORT_EVERY_S:
            reported = time.monotonic()
            done = seed - asked.first + 1
            print(f"{done} of {asked.seeds} seeds, {bad} bad, {done / (reported - began):.0f}/s", flush=True)
    print(f"{asked.seeds} seeds, {calls} calls, {admitted} hits admitted: {bad} beyond their bound")
    return min(bad, 1)


def _told(seed: int, verdict: Verdict) -> str:
    plan = verdict.plan._replace(calls=[])
    return f"seed {seed}: {verdict.worst} beyond the law, the bound is {verdict.bound}\n  {plan}"


if __name__ == "__main__":
    sys.exit(main())
