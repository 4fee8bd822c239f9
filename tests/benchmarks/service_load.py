"""The service under load over gRPC: server on one core, generator on another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.benchmarks import loadgen

POLICIES = Path(__file__).parent / "policies"
TWO_DESCRIPTORS = (
    "-descriptor", "plan=gold,method=POST,account={}",
    "-descriptor", "route=pay,region=eu,address={}",
)  # fmt: skip


class Scenario(msgspec.Struct, frozen=True):
    """A named load.

    Attributes:
        name: Shown in tables and JSON.
        arguments: Of the generator.
        note: What it is for.
        seconds: Measured time.
    """

    name: str
    arguments: tuple[str, ...]
    note: str
    seconds: int = 5


SCENARIOS = (
    Scenario("zipf 4x16", ("-conns", "4", "-streams", "16"), "closed loop, 10,000 keys, Zipf 1.1"),
    Scenario(
        "uniform 4x16",
        ("-conns", "4", "-streams", "16", "-zipf", "0", "-keys", "100000"),
        "closed loop, 100,000 keys, uniform",
    ),
    Scenario(
        "new keys 4x16",
        ("-conns", "4", "-streams", "16", "-fresh", "-descriptor", "visitor={}"),
        "closed loop, every key new, window 1 s",
    ),
    Scenario("sliding 4x16", ("-conns", "4", "-streams", "16", "-descriptor", "client={}"), "sliding window, Zipf 1.1"),
    Scenario("bucket 4x16", ("-conns", "4", "-streams", "16", "-descriptor", "token={}"), "token bucket, Zipf 1.1"),
    Scenario(
        "own headers 4x16",
        ("-conns", "4", "-streams", "16", "-traceparent", "-timeout"),
        "each call with its own traceparent and grpc-timeout",
    ),
    Scenario("8x1", ("-conns", "8", "-streams", "1"), "one call in flight on each of 8 connections"),
    Scenario(
        "two descriptors 4x16",
        ("-conns", "4", "-streams", "16", *TWO_DESCRIPTORS),
        "2 descriptors of 3 entries, 2 limits each",
    ),
    Scenario("open loop 1,000/s", ("-conns", "4", "-streams", "256", "-rate", "1000"), "latency at 1,000/s"),
    Scenario("open loop 10,000/s", ("-conns", "4", "-streams", "1024", "-rate", "10000"), "latency at 10,000/s"),
)


class Server(msgspec.Struct, frozen=True):
    """A running service: its gRPC address, admin address and process id."""

    grpc: str
    admin: str
    pid: int

    def rss_mib(self) -> float:
        """Resident memory of the process now, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found.group(1)) / 1024 if found else -1.0


@contextmanager
def server(
    transport: str, *, core: int | None, policies: Path = POLICIES, flags: tuple[str, ...] = ()
) -> Iterator[Server]:
    """The service as users start it, on free ports; ended and awaited at exit."""
    command = [
        sys.executable, "-m", "ratelimit_service.cli", "serve", "--policies", str(policies), "--transport", transport,
        "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain-delay", "0s", *flags,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        grpc = admin = ""
        deadline = time.monotonic() + 30
        seen = []
        assert process.stdout is not None
        while not (grpc and admin):
            line = process.stdout.readline()
            seen.append(line)
            if not line or time.monotonic() > deadline:
                raise RuntimeError("the service did not start:\n" + "".join(seen))
            grpc = grpc or _address(line, "grpc")
            admin = admin or _address(line, "admin")
        yield Server(grpc, admin, process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _address(line: str, what: str) -> str:
    found = re.search(rf'"?{what}"?\W+(127\.0\.0\.1:\d+)', line)
    return found.group(1) if found else ""


def measure(scenario: Scenario, target: Server, *, seconds: int, core: int | None) -> dict[str, float]:
    """Run one scenario; the generator's figures and the server's memory after it."""
    arguments = ("-addr", target.grpc, "-duration", f"{seconds}s", *scenario.arguments)
    figures = loadgen.run(arguments, core=core, timeout_s=seconds + 60)
    return {**figures, "rss_mib": round(target.rss_mib(), 1)}
