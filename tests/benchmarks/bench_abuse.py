"""Latency of clients that behave, beside 1,000 idle connections, without and with one abuser of each kind.

    python -m tests.benchmarks.bench_abuse [--seconds 10] [--rounds 3]

The abusers (tests/support/abusers.py) run in a process of their own on the generator's core when that has nothing else
to do, all at once. Each attacks until it is closed: once in a run, or again and again, `BACK_AFTER_S` later. Those that
stall on purpose are closed after 10 to 20 s, so in shorter runs they stay. A round measures every state; told are
medians over the rounds, and what became of the abusers in all of them.

How long the server is held by one read of each abuser is told apart, in processor time and without sockets: that figure
says the same on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.transport.native_connection import NativeConnection
from ratelimit_service.transport.native_turns import MOST_BYTES
from ratelimit_service.wire.http2.frames import PREFACE
from support.abusers import ABUSERS, Abuser
from tests.benchmarks import loadgen, machine, processes, tables
from tests.benchmarks.bench_replay import Sink, hub
from tests.benchmarks.idle_connections import idle_connections
from tests.benchmarks.processes import Cores
from tests.benchmarks.service_load import Server, server

RATE = 2_000
IDLE_CONNECTIONS = 1_000
BACK_AFTER_S = 1.0
NEVER_BACK_S = 1e6
HELD_RUNS = 3
MOST_LOADS = 50_000
"""Of an abuser that is not closed for what it sends, but for what it does not read."""
OPEN = ("-conns", "4", "-streams", "1024", "-rate", str(RATE), "-warmup", "0s")
TESTS = Path(__file__).parents[1]


class Row(msgspec.Struct, frozen=True):
    """One state; latencies are medians over the rounds.

    Attributes:
        p99_ratio: Of the p99 to that of the quiet state, as the median of the rounds' ratios; asked: below 2.
        cpu_share: Of the server's core that the server used.
        errors: Calls of all rounds without a verdict.
        rss_mib: Of the server after the last round.
    """

    state: str
    calls_per_s: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p99_ratio: float
    max_ms: float
    cpu_share: float
    errors: int
    rss_mib: float


class Kind(msgspec.Struct, frozen=True):
    """One kind of abuser over all rounds: connections made, closed by the server, and told ENHANCE_YOUR_CALM."""

    name: str
    connections: int
    closed: int
    enhance_your_calm: int


class Held(msgspec.Struct, frozen=True):
    """What an abuser costs until it is closed, in processor time; the least of some runs.

    Attributes:
        longest_read_us: Its costliest read: so long nobody else is answered.
        in_all_ms, reads: All of them.
    """

    name: str
    longest_read_us: int
    in_all_ms: float
    reads: int


class Run(msgspec.Struct, frozen=True):
    """One state in one round."""

    figures: loadgen.Figures
    cpu_share: float
    rss_mib: float


@contextlib.contextmanager
def abusers(port: int, seconds: float, pause_s: float, core: int | None, kinds: list[Kind]) -> Iterator[None]:
    """All kinds at once, for so long, each back after `pause_s`; what became of them is added to `kinds`."""
    command = [
        *processes.pinned(core), *processes.when_idle(),
        sys.executable, "-m", "support.abusers", str(port), str(seconds), str(pause_s),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), str(machine.ROOT)))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        yield
        output, _ = process.communicate(timeout=180)
        kinds += msgspec.json.decode(output, type=list[Kind])
    finally:
        process.kill()
        process.wait()


def measure(target: Server, seconds: float, cores: Cores) -> Run:
    """One load."""
    cpu_s = processes.cpu_s(target.pid)
    command = ("-addr", target.grpc, "-duration", f"{seconds}s", *OPEN)
    figures = loadgen.run(command, core=cores.load, timeout_s=seconds + 60)
    cpu_share = (processes.cpu_s(target.pid) - cpu_s) / seconds
    return Run(figures, round(cpu_share, 3), processes.rss_mib(target.pid))


def summary(state: str, runs: list[Run], quiet: list[Run]) -> Row:
    """The rounds of one state."""

    def median(name: str) -> float:
        return round(statistics.median(getattr(run.figures, name) for run in runs), 3)

    ratio = statistics.median(
        run.figures.p99_ms / before.figures.p99_ms for run, before in zip(runs, quiet, strict=True)
    )
    return Row(
        state=state,
        calls_per_s=round(median("calls_per_s")),
        p50_ms=median("p50_ms"),
        p95_ms=median("p95_ms"),
        p99_ms=median("p99_ms"),
        p99_ratio=round(ratio, 2),
        max_ms=max(run.figures.max_ms for run in runs),
        cpu_share=round(statistics.median(run.cpu_share for run in runs), 3),
        errors=sum(run.figures.grpc_errors + run.figures.resets + run.figures.unknown for run in runs),
        rss_mib=runs[-1].rss_mib,
    )


def total(kinds: list[Kind]) -> list[Kind]:
    """The rounds' kinds, summed by name."""
    counts: dict[str, Counter[str]] = {}
    for kind in kinds:
        counts.setdefault(kind.name, Counter()).update(
            connections=kind.connections, closed=kind.closed, enhance_your_calm=kind.enhance_your_calm
        )
    return [Kind(name, **count) for name, count in counts.items()]


def hold(abuser: Abuser, load: Callable[[int], bytes]) -> Held:
    """One abuser that is read as a loop would read it."""
    client, socket = NativeConnection(hub(), None), Sink()
    client.connection_made(socket)
    spent_us: list[float] = []
    ready, number = PREFACE + abuser.hello, 0
    while not socket.is_closing() and number < MOST_LOADS:
        while len(ready) < MOST_BYTES:
            ready += b"".join(load(each) for each in range(number, number + 100))
            number += 100
        buffer = client.get_buffer(-1)
        buffer[:], ready = ready[: len(buffer)], ready[len(buffer) :]
        begun_ns = time.thread_time_ns()
        client.buffer_updated(len(buffer))
        spent_us.append((time.thread_time_ns() - begun_ns) / 1_000)
    return Held(abuser.name, round(max(spent_us)), round(sum(spent_us) / 1_000, 1), len(spent_us))


async def holds() -> list[Held]:
    """Every abuser that floods; on a loop, because connections ask for the running one."""
    floods = [(abuser, abuser.load) for abuser in ABUSERS if abuser.load is not None and not abuser.pause_s]
    return [
        min((hold(abuser, load) for _ in range(HELD_RUNS)), key=lambda each: each.longest_read_us)
        for abuser, load in floods
    ]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="measured time of each state in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    held = asyncio.run(holds())
    cores = processes.cores()
    quiet: list[Run] = []
    once: list[Run] = []
    again: list[Run] = []
    kinds: list[Kind] = []
    with server("native", core=cores.server) as target, idle_connections(target.grpc_port, IDLE_CONNECTIONS):
        for _ in range(options.rounds):
            quiet.append(measure(target, options.seconds, cores))
            for runs, pause_s in ((once, NEVER_BACK_S), (again, BACK_AFTER_S)):
                with abusers(target.grpc_port, options.seconds, pause_s, cores.load, kinds):
                    runs.append(measure(target, options.seconds, cores))
    rows = [
        summary("idle connections", quiet, quiet),
        summary("and one abuser of each kind", once, quiet),
        summary(f"and the same coming back after {BACK_AFTER_S:.0f} s", again, quiet),
    ]
    ends = total(kinds)
    tables.show(f"native at {RATE:,} calls/s, open loop, beside {IDLE_CONNECTIONS:,} idle connections", rows)
    tables.show("what became of the abusers", ends)
    tables.show("what one abuser costs until it is closed, processor time", held)
    facts = {"rate": RATE, "idle_connections": IDLE_CONNECTIONS, "seconds": options.seconds, "rounds": options.rounds}
    figures = {
        "rows": msgspec.to_builtins(rows),
        "abusers": msgspec.to_builtins(ends),
        "held": msgspec.to_builtins(held),
    }
    machine.write(options.out / "abuse.json", {**facts, **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
