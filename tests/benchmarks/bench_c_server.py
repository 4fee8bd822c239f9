"""What a call costs beside a server in C that answers it too, nghttpd: processor time of each server per call.

    python -m tests.benchmarks.bench_c_server [--seconds 3] [--rounds 3]

nghttpd sends a file that holds one fixed answer, with `grpc-status` as trailer: HTTP/2 and a response of the same size,
and nothing decided. Both servers are asked in turn by the same generator, on the same core. What nghttpd's latencies
show is the floor that generator, kernel and machine leave to any server.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ratelimit_service.wire.grpc.calls import frame_message
from ratelimit_service.wire.rls.encode import encode_response
from ratelimit_service.wire.rls.messages import Status, Verdict
from tests.benchmarks import h2load, loadgen, machine, processes, tables
from tests.benchmarks.processes import Cores
from tests.benchmarks.scenarios import CLOSED, OPEN
from tests.benchmarks.service_load import server

H2LOAD_CALLS_PER_S = 60_000
"""h2load ends by number: so many for each second asked for."""


class Row(msgspec.Struct, frozen=True):
    """One load on both servers; medians over the rounds.

    Attributes:
        cpu_us, c_cpu_us: Processor time per call of ours and of nghttpd.
        cost_ratio: The first by the second.
        calls_per_s, c_calls_per_s: As the generator saw it; it is the one at its limit with nghttpd.
    """

    load: str
    cpu_us: float
    c_cpu_us: float
    cost_ratio: float
    calls_per_s: int
    c_calls_per_s: int


class Latency(msgspec.Struct, frozen=True):
    """Open loop at 10,000 calls per second; medians over the rounds."""

    server: str
    calls_per_s: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float


class Cost(msgspec.Struct, frozen=True):
    """One run against one server."""

    cpu_us: float
    calls_per_s: float


class Asked(msgspec.Struct, frozen=True):
    """A server that is running: its port on 127.0.0.1 and its process."""

    port: int
    pid: int


@contextlib.contextmanager
def nghttpd(cores: Cores) -> Iterator[Asked]:
    """The server in C, with the answer "OK" for every call."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / h2load.PATH.lstrip("/")
        answer.parent.mkdir()
        answer.write_bytes(frame_message(encode_response(Verdict(over=False, statuses=(Status(over=False),)))))
        port = processes.free_port()
        command = [
            *processes.pinned(cores.server), "nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", folder, "-m", "1000",
            "--trailer", "grpc-status: 0", str(port),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            processes.wait_for_port(port)
            yield Asked(port, process.pid)
        finally:
            process.terminate()
            process.wait(timeout=10)


def by_loadgen(asked: Asked, seconds: float, cores: Cores) -> Cost:
    """10,000 keys by Zipf, 4 connections × 16 calls."""
    before_s = processes.cpu_s(asked.pid)
    command = ("-addr", f"127.0.0.1:{asked.port}", "-duration", f"{seconds}s", *CLOSED)
    figures = loadgen.run(command, core=cores.load, timeout_s=seconds + 60)
    return Cost((processes.cpu_s(asked.pid) - before_s) * 1e6 / figures.answered, figures.calls_per_s)


def by_h2load(asked: Asked, seconds: float, cores: Cores) -> Cost:
    """One fixed request, 4 connections × 16 calls."""
    calls = round(H2LOAD_CALLS_PER_S * seconds)
    before_s = processes.cpu_s(asked.pid)
    figures = h2load.run(asked.port, calls=calls, connections=4, streams=16, core=cores.load)
    return Cost((processes.cpu_s(asked.pid) - before_s) * 1e6 / figures.succeeded, figures.calls_per_s)


def open_loop(asked: Asked, seconds: float, cores: Cores) -> loadgen.Figures:
    """10,000 calls per second."""
    command = ("-addr", f"127.0.0.1:{asked.port}", "-duration", f"{seconds}s", *OPEN)
    return loadgen.run(command, core=cores.load, timeout_s=seconds + 60)


def latency(name: str, runs: Sequence[loadgen.Figures]) -> Latency:
    """The rounds of one server."""
    middle = {field: statistics.median(getattr(run, field) for run in runs) for field in Latency.__struct_fields__[1:]}
    # Of an even number of rounds the middle is a half.
    middle["calls_per_s"] = round(middle["calls_per_s"])
    return msgspec.convert({"server": name, **middle}, Latency, strict=False)


LOADS = {"10,000 keys by Zipf, 4x16": by_loadgen, "one request again and again, 4x16 (h2load)": by_h2load}


def row(load: str, ours: list[Cost], theirs: list[Cost]) -> Row:
    """Medians, and the median of the rounds' ratios."""
    ratio = statistics.median(one.cpu_us / other.cpu_us for one, other in zip(ours, theirs, strict=True))
    return Row(
        load=load,
        cpu_us=round(statistics.median(cost.cpu_us for cost in ours), 2),
        c_cpu_us=round(statistics.median(cost.cpu_us for cost in theirs), 2),
        cost_ratio=round(ratio, 2),
        calls_per_s=round(statistics.median(cost.calls_per_s for cost in ours)),
        c_calls_per_s=round(statistics.median(cost.calls_per_s for cost in theirs)),
    )


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transport", default="native")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    if not h2load.is_here():
        print(f"bench_c_server {h2load.MISSING}", file=sys.stderr)
        return 0
    cores = processes.cores()
    rows = []
    with server(options.transport, core=cores.server) as service, nghttpd(cores) as other:
        ours = Asked(service.grpc_port, service.pid)
        for name, load in LOADS.items():
            rounds = [
                (load(ours, options.seconds, cores), load(other, options.seconds, cores)) for _ in range(options.rounds)
            ]
            rows.append(row(name, [pair[0] for pair in rounds], [pair[1] for pair in rounds]))
        open_runs = [
            [open_loop(asked, options.seconds, cores) for asked in (ours, other)] for _ in range(options.rounds)
        ]
    latencies = [
        latency(name, runs)
        for name, runs in zip((options.transport, "nghttpd"), zip(*open_runs, strict=True), strict=True)
    ]
    tables.show(f"{options.transport} beside a server in C that decides nothing (nghttpd)", rows)
    tables.show("open loop, 10,000/s", latencies)
    facts = {"transport": options.transport, "seconds": options.seconds, "rounds": options.rounds}
    machine.write(
        options.out / "c_server.json",
        {**facts, "rows": msgspec.to_builtins(rows), "open_loop": msgspec.to_builtins(latencies)},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
