"""How far limiters over Redis go beyond their law: ours and what users have now, by the same checker.

python -m tests.benchmarks.compare_histories [--out build/bench]

Several processes call one limiter over one key, with storms around the edges of windows; a history checker computes
the greatest excess over all windows or intervals (`support.history`). The others are installed from the package index
into an environment of their own, in build/rivals. In the rows with a skew the clock of one process is ahead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.algorithms.limit import Algorithm, Limit
from support.history import Call, excess
from support.redis_servers import running_server
from tests.benchmarks import machine, tables

RIVALS = ("limits[redis]==5.8.0", "throttled-py[redis]==3.5.0", "redis==7.4.1")
HOME = Path("build/rivals")
CALLERS = Path(__file__).with_name("history_callers.py")
REQUESTS, BURST, WINDOW_S = 100, 40, 1
SECONDS = 6
SKEW_S = 0.3
FIXED, SLIDING, BUCKET = Algorithm

Contender = tuple[str, str, Algorithm]
"""Limiter, its name for the algorithm, the law that it is to keep."""

CONTENDERS: tuple[Contender, ...] = (
    ("tidegate", "leased", FIXED),
    ("tidegate", "leased", SLIDING),
    ("tidegate", "leased", BUCKET),
    ("tidegate", "exact", FIXED),
    ("tidegate", "exact", SLIDING),
    ("tidegate", "exact", BUCKET),
    ("limits", "MovingWindowRateLimiter", SLIDING),
    ("limits", "SlidingWindowCounterRateLimiter", SLIDING),
    ("throttled-py", "fixed_window", FIXED),
    ("throttled-py", "sliding_window", SLIDING),
    ("throttled-py", "token_bucket", BUCKET),
    ("throttled-py", "gcra", BUCKET),
)


class Row(msgspec.Struct, frozen=True):
    """One limiter.

    Attributes:
        over: Greatest number of hits beyond the law in one window or interval.
        over_percent: The same, of the limit (a bucket: of its burst).
        skew_ms: By how much the clock of one process was ahead.
    """

    limiter: str
    version: str
    strategy: str
    law: str
    limit: str
    skew_ms: int
    calls: int
    admitted: int
    over: int
    over_percent: int


def rivals() -> Path:
    """The interpreter that has the others."""
    python = HOME / "bin" / "python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *RIVALS], check=True)
    return python


def measured(contender: Contender, url: str, python: Path, processes: int, skew_s: float) -> Row:
    """Run one limiter in several processes, and judge what they saw."""
    limiter, strategy, law = contender
    limit = Limit(law, REQUESTS, WINDOW_S * 1_000_000, BURST if law is BUCKET else REQUESTS)
    # Begins at the edge of a window, when all are ready.
    begins_s = int(time.time()) + 3
    plan = {
        "limiter": limiter,
        "strategy": strategy,
        "law": law.value,
        "url": url,
        "requests": REQUESTS,
        "burst": limit.burst,
        "window_s": WINDOW_S,
        "begins_s": begins_s,
        "seconds": SECONDS,
        "trickle": 15,
        "storm": 120,
        "processes": processes,
    }
    running: list[subprocess.Popen[bytes]] = []
    for number in range(processes):
        own = {**plan, "seed": number, "skew_s": skew_s if number == 0 else 0.0}
        command = [sys.executable if limiter == "tidegate" else str(python), str(CALLERS)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment())
        assert process.stdin is not None
        process.stdin.write(json.dumps(own).encode())
        process.stdin.close()
        running.append(process)
    calls: list[Call] = []
    for process in running:
        assert process.stdout is not None
        calls += [Call(sent, answered, 1, admitted) for sent, answered, admitted in json.load(process.stdout)]
        if process.wait():
            raise RuntimeError(f"{limiter} {strategy} failed")
    over = excess(limit, calls).hits
    told = f"{REQUESTS}/{WINDOW_S} s" + (f", burst {BURST}" if law is BUCKET else "")
    version = next((pin.partition("==")[2] for pin in RIVALS if pin.startswith(limiter)), "this")
    admitted = sum(call.admitted for call in calls)
    skew_ms = int(skew_s * 1_000)
    percent = 100 * over // limit.burst
    return Row(limiter, version, strategy, law.value, told, skew_ms, len(calls), admitted, over, percent)


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(machine.ROOT), "PATH": "/usr/bin:/bin"}


def compared(contenders: Sequence[Contender], processes: int, skews_s: Sequence[float]) -> list[Row]:
    """Every contender, each with a server of its own."""
    python = rivals()
    rows = []
    for contender in contenders:
        for skew_s in skews_s:
            with running_server() as server:
                url = f"redis://{server.endpoint}/0"
                if contender[0] == "tidegate":
                    # As patient as the others: what is measured is the law, not how soon a busy machine answers.
                    url += "?command_timeout=1s"
                rows.append(measured(contender, url, python, processes, skew_s))
    return rows


def main() -> int:
    """Compare, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--only", default="", help="limiters whose name contains this")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    asked = [one for one in CONTENDERS if options.only in f"{one[0]} {one[1]}"]
    rows = compared(asked, options.processes, (0.0, SKEW_S))
    tables.show("hits admitted beyond the law, by one checker of histories", rows)
    machine.write(options.out / "histories.json", {"processes": options.processes, "rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
