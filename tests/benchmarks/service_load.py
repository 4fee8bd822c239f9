"""The service under load over gRPC: server on one core, generator on another."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.benchmarks import loadgen, processes
from tests.benchmarks.processes import Cores
from tests.benchmarks.scenarios import Scenario

POLICIES = Path(__file__).parent / "policies"


class Server(msgspec.Struct, frozen=True):
    """A running service: its gRPC address, admin address and process id."""

    grpc: str
    admin: str
    pid: int

    @property
    def grpc_port(self) -> int:
        """Where it listens."""
        return int(self.grpc.rpartition(":")[2])

    def metric(self, name: str) -> float:
        """The sum of a metric's series now; 0: it has none."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[ {{]", line))


class Row(msgspec.Struct, frozen=True):
    """One scenario over one transport.

    Attributes:
        transport, scenario, note: What was measured.
        reach: Calls per second, or a latency, that the design asks for; empty: none.
        calls_per_s: As the generator saw it, from its own core; on a shared machine the noisiest figure.
        cpu_us: Processor time of the server for each call, its kernel side included.
        core_calls_per_s: What a core could answer, if it did nothing else: 1 s / `cpu_us`.
        allowed, denied: Shares of the answers; what is neither of them ended in a gRPC error or without a verdict.
        refused: Share of the calls that the store denied because it was full.
        shared: Share of the calls that were counted together with other keys because it was nearly so.
        grpc_errors, resets: Calls without a verdict.
        idle_rss_mib, rss_mib: Memory of the server before and after.
    """

    transport: str
    scenario: str
    note: str
    reach: str
    calls_per_s: int
    cpu_us: float
    core_calls_per_s: int
    allowed: float
    denied: float
    refused: float
    shared: float
    grpc_errors: int
    resets: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    idle_rss_mib: float
    rss_mib: float


@functools.cache
def environment() -> dict[str, str]:
    """Of a service whose modules are compiled, as an installed package's are: compiling them takes memory too."""
    compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path.home() / ".cache" / "tidegate" / "pycache")}
    compiled.pop("PYTHONDONTWRITEBYTECODE", None)
    serve_help = [sys.executable, "-m", "ratelimit_service.cli", "serve", "--help"]
    subprocess.run(serve_help, env=compiled, check=True, capture_output=True)
    return compiled


@contextmanager
def server(
    transport: str, *, core: int | None, policies: tuple[Path, ...] = (POLICIES,), flags: tuple[str, ...] = ()
) -> Iterator[Server]:
    """The service as users start it, on free ports; ended and awaited at exit."""
    command = [
        *processes.pinned(core), sys.executable, "-m", "ratelimit_service.cli", "serve", "--transport", transport,
        *(word for path in policies for word in ("--policies", str(path))),
        "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain-delay", "0s", *flags,
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment())
        try:
            deadline = time.monotonic() + 30
            ready = None
            while ready is None:
                time.sleep(0.05)
                log.seek(0)
                written = log.read()
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the service did not start:\n{written}")
                ready = re.search(r"is ready: grpc (\S+) admin (\S+)\n", written)
            yield Server(ready[1], ready[2], process.pid)
        finally:
            process.terminate()
            process.wait(timeout=60)


def measure(scenario: Scenario, transport: str, *, seconds: float | None, cores: Cores) -> Row:
    """One scenario over a server of its own, for its own time or `seconds`."""
    measured_s = seconds or scenario.seconds
    with server(transport, core=cores.server, flags=scenario.flags) as target:
        idle_rss_mib, cpu_s = processes.rss_mib(target.pid), processes.cpu_s(target.pid)
        arguments = ("-addr", target.grpc, "-duration", f"{measured_s}s", *scenario.arguments)
        figures = loadgen.run(arguments, core=cores.load, timeout_s=measured_s + 60)
        cpu_us = (processes.cpu_s(target.pid) - cpu_s) * 1e6 / max(1, figures.answered)
        rss_mib = processes.rss_mib(target.pid)
        refused = target.metric("tidegate_store_refused_total")
        shared = target.metric("tidegate_store_shared_decisions_total")
    verdicts = figures.ok + figures.over + figures.unknown + figures.grpc_errors + figures.resets
    return Row(
        transport=transport,
        scenario=scenario.name,
        note=scenario.note,
        reach=scenario.reach if transport == "native" else "",
        calls_per_s=figures.calls_per_s,
        cpu_us=round(cpu_us, 2),
        core_calls_per_s=round(1e6 / cpu_us) if cpu_us else 0,
        allowed=round(figures.ok / max(1, verdicts), 4),
        denied=round(figures.over / max(1, verdicts), 4),
        refused=round(refused / max(1, figures.answered), 4),
        shared=round(shared / max(1, figures.answered), 4),
        grpc_errors=figures.grpc_errors,
        resets=figures.resets,
        p50_ms=figures.p50_ms,
        p95_ms=figures.p95_ms,
        p99_ms=figures.p99_ms,
        p999_ms=figures.p999_ms,
        max_ms=figures.max_ms,
        idle_rss_mib=idle_rss_mib,
        rss_mib=rss_mib,
    )
