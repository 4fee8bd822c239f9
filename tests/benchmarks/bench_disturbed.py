"""Latency at 10,000 calls per second while policies reload and while metrics are scraped, beside quiet runs.

    python -m tests.benchmarks.bench_disturbed [--seconds 10] [--rounds 3]

Each round measures every state once, so that what the machine does meanwhile falls on all of them; what is told is the
median over the rounds. The disturber runs on the generator's core when that has nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.benchmarks import loadgen, machine, processes, tables
from tests.benchmarks.bench_reload import write_policies
from tests.benchmarks.scenarios import OPEN
from tests.benchmarks.service_load import POLICIES, Server, server

RELOADED_POLICIES = 1_000
LIVE_RULES = 5_000
RULES_PER_POLICY = 50
SERIES_BOUND = 60_000
RULE = ("-descriptor", "rule={}", "-keys", str(LIVE_RULES), "-zipf", "0")

Step = Callable[[], None]
"""One reload or one scrape, done again and again while a load runs."""


class Row(msgspec.Struct, frozen=True):
    """One state; latencies are medians over the rounds.

    Attributes:
        state: What went on meanwhile.
        done: Reloads or scrapes begun in all rounds; the next one begins when one is done.
        cpu_us: Processor time of the server per call, what it spent on the disturbance included.
        p99_growth_ms: Of the p99 over the quiet state of the same server, as the median of the rounds' differences.
        errors: Calls of all rounds without a verdict.
    """

    state: str
    done: int
    calls_per_s: int
    cpu_us: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p99_growth_ms: float
    max_ms: float
    errors: int


class Run(msgspec.Struct, frozen=True):
    """One state in one round."""

    state: str
    figures: loadgen.Figures
    cpu_us: float
    done: int


@contextlib.contextmanager
def beside(step: Step | None, core: int | None) -> Iterator[list[int]]:
    """Does `step` again and again in a thread that runs when nothing else does; the list grows with each done."""
    done: list[int] = []
    ended = threading.Event()

    def work() -> None:
        # On Linux both are the thread's own. Idle, because a thread of low priority keeps a core for milliseconds once
        # it has it, and the generator would take that for the service's latency.
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        if core is not None:
            os.sched_setaffinity(0, {core})
        while step is not None and not ended.is_set():
            step()
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        ended.set()
        thread.join()


def measure(state: str, target: Server, arguments: Sequence[str], step: Step | None, seconds: float) -> Run:
    """One load, with `step` going on beside it."""
    core = processes.cores().load
    with beside(step, core) as done:
        cpu_s = processes.cpu_s(target.pid)
        command = ("-addr", target.grpc, "-duration", f"{seconds}s", *OPEN, *arguments)
        figures = loadgen.run(command, core=core, timeout_s=seconds + 60)
        cpu_us = (processes.cpu_s(target.pid) - cpu_s) * 1e6 / figures.answered
    return Run(state, figures, cpu_us, len(done))


def summary(state: str, runs: Sequence[Run]) -> Row:
    """The rounds of one state; the first state of `runs` is the quiet one."""
    quiet = [run.figures.p99_ms for run in runs if run.state == runs[0].state]
    own = [run for run in runs if run.state == state]

    def median(name: str) -> float:
        return round(statistics.median(getattr(run.figures, name) for run in own), 3)

    growth = statistics.median(run.figures.p99_ms - before for run, before in zip(own, quiet, strict=True))
    return Row(
        state=state,
        done=sum(run.done for run in own),
        calls_per_s=round(median("calls_per_s")),
        cpu_us=round(statistics.median(run.cpu_us for run in own), 2),
        p50_ms=median("p50_ms"),
        p95_ms=median("p95_ms"),
        p99_ms=median("p99_ms"),
        p99_growth_ms=round(growth, 3),
        max_ms=max(run.figures.max_ms for run in own),
        errors=sum(run.figures.grpc_errors + run.figures.resets + run.figures.unknown for run in own),
    )


def reloading(transport: str, seconds: float, rounds: int) -> list[Row]:
    """Quiet, and 1,000 policies that all change and reload again and again.

    They change as a mounted ConfigMap does, by a link that is turned to another folder: nothing is written meanwhile.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        versions = itertools.cycle(("one", "other"))
        for requests, version in enumerate(("one", "other"), 1):
            (root / version).mkdir()
            write_policies(root / version, RELOADED_POLICIES, requests)

        def turn() -> None:
            (root / "next").symlink_to(next(versions))
            (root / "next").rename(root / "current")

        turn()
        policies = (POLICIES, root / "current")
        with server(transport, core=processes.cores().server, policies=policies) as target:

            def reload() -> None:
                before = target.metric("tidegate_config_loads_total")
                turn()
                deadline = time.monotonic() + 60
                while target.metric("tidegate_config_loads_total") == before:
                    assert time.monotonic() < deadline, "the service did not reload"
                    time.sleep(0.25)

            steps = {"quiet": None, f"{RELOADED_POLICIES:,} policies reload": reload}
            return in_rounds(target, (), steps, seconds, rounds)


def write_rules(folder: Path) -> None:
    """As many policies of one domain as 5,000 rules need, each rule for one value of the generator's."""
    head = "apiVersion: tidegate.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: many-{}, namespace: bench}}\n"
    rule = (
        "  - {{name: rule-{0}, match: [{{key: rule, value: u{0:07}}}],"
        " limits: [{{requests: 10000000, window: 1m, algorithm: FixedWindow}}]}}\n"
    )
    for first in range(0, LIVE_RULES, RULES_PER_POLICY):
        rules = "".join(rule.format(number) for number in range(first, first + RULES_PER_POLICY))
        text = f"{head.format(first)}spec:\n  domain: bench\n  rules:\n{rules}"
        (folder / f"many-{first}.yaml").write_text(text)


def scraping(transport: str, seconds: float, rounds: int) -> list[Row]:
    """Quiet, and scraped each second, with 5,000 rules that all have series."""
    with tempfile.TemporaryDirectory() as folder:
        write_rules(Path(folder))
        flags = ("--metrics-max-series", str(SERIES_BOUND))
        with server(transport, core=processes.cores().server, policies=(Path(folder),), flags=flags) as target:

            def scrape() -> None:
                due = time.monotonic() + 1
                with urllib.request.urlopen(f"http://{target.admin}/metrics", timeout=30) as response:
                    while response.read(1 << 20):
                        pass
                time.sleep(max(0, due - time.monotonic()))

            every_rule_once = ("-addr", target.grpc, "-calls", str(20 * LIVE_RULES), *RULE)
            loadgen.run(every_rule_once, core=processes.cores().load, timeout_s=120)
            steps = {"quiet, 5,000 live rules": None, "scraped each second, 5,000 live rules": scrape}
            return in_rounds(target, RULE, steps, seconds, rounds)


def in_rounds(
    target: Server, arguments: Sequence[str], steps: dict[str, Step | None], seconds: float, rounds: int
) -> list[Row]:
    """Every state once a round; the first is the quiet one."""
    runs = [measure(state, target, arguments, step, seconds) for _ in range(rounds) for state, step in steps.items()]
    return [summary(state, runs) for state in steps]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="measured time of each state in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transport", default="native")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    rows = [
        *reloading(options.transport, options.seconds, options.rounds),
        *scraping(options.transport, options.seconds, options.rounds),
    ]
    tables.show(f"{options.transport} at 10,000 calls/s, open loop; p99 asked: < 2 ms, growth < 0.2 ms", rows)
    facts = {"transport": options.transport, "seconds": options.seconds, "rounds": options.rounds}
    machine.write(options.out / "disturbed.json", {**facts, "rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
