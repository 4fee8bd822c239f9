"""What a call costs the native transport without socket and event loop: recorded traffic, given to it again.

    python -m tests.benchmarks.bench_replay [--calls 20000] [--rounds 5] [--only zipf] [--profile]

The generator's bytes are recorded on their way to a running service, read by read, and then given to connections of
this process as asyncio would, in turn; what they write is dropped. Told is the least processor time of all rounds,
each with a service of its own, so that a machine that is busy with other things spoils little.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ratelimit_service.clock import Clock
from ratelimit_service.limiter.engine import OWN_STORE, Limiter
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.compile import compile as compile_set
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.transport.native_connection import NativeConnection
from ratelimit_service.transport.native_hub import Hub
from ratelimit_service.transport.native_settings import NativeSettings
from tests.benchmarks import loadgen, machine, tables
from tests.benchmarks.scenarios import SCENARIOS, Scenario
from tests.benchmarks.service_load import POLICIES, server

WARM_SHARE = 0.2
"""Of the reads: they fill what is remembered, and are not measured."""
READ_BYTES = 64 * 1024


class Row(msgspec.Struct, frozen=True):
    """One scenario: calls and bytes of a read on average, and processor time of a call."""

    scenario: str
    calls: int
    calls_a_read: float
    cpu_us: float


class Chunk(msgspec.Struct, frozen=True):
    """What one read gave, and on which connection."""

    connection: int
    data: bytes


class Sink(asyncio.Transport):
    """A socket that takes everything; counts the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take."""
        self.written += len(data)

    def is_closing(self) -> bool:
        """Whether the server has closed it."""
        return self._is_closing

    def pause_reading(self) -> None:
        """Reads come in the order in which they were recorded."""

    def resume_reading(self) -> None:
        """Reads come in the order in which they were recorded."""

    def close(self) -> None:
        """Take no more."""
        self._is_closing = True


async def record(scenario: Scenario, calls: int) -> list[Chunk]:
    """The reads of so many calls, as they came to a relay in front of the service."""
    chunks: list[Chunk] = []
    connections = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        nonlocal connections
        number, connections = connections, connections + 1
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while data := await upstream_reader.read(READ_BYTES):
                writer.write(data)
            writer.close()

        task = asyncio.create_task(back())
        while data := await reader.read(READ_BYTES):
            chunks.append(Chunk(number, data))
            upstream_writer.write(data)
        upstream_writer.close()
        await task

    with server("native", core=None, flags=scenario.flags) as target:
        listener = await asyncio.start_server(
            lambda reader, writer: relay(reader, writer, target.grpc_port), "127.0.0.1", 0
        )
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        arguments = ("-addr", address, "-calls", str(calls), *scenario.arguments)
        await asyncio.to_thread(loadgen.run, arguments, core=None, timeout_s=120)
        listener.close()
    return chunks


def hub() -> Hub:
    """A service without sockets: the benchmark's policies over memory, metrics on."""
    files = [SourceFile(path.name, path.read_bytes()) for path in POLICIES.iterdir()]
    snapshot, problems = compile_set(decode(files)[0], CompileOptions())
    assert not problems, problems
    clock = Clock()
    limiter = Limiter({OWN_STORE: MemoryStore(clock=clock)}, LimiterSettings(), CounterTable())
    limiter.apply(snapshot)
    return Hub(limiter, clock.read, NativeSettings(), Histogram())


def replay(chunks: Sequence[Chunk], profile: cProfile.Profile | None) -> tuple[int, int, float]:
    """(calls, reads, seconds of processor time) of what comes after the warm-up."""
    shared = hub()
    clients = [NativeConnection(shared, None) for _ in range(1 + max(chunk.connection for chunk in chunks))]
    sockets = [Sink() for _ in clients]
    for client, socket in zip(clients, sockets, strict=True):
        client.connection_made(socket)
    warm = int(len(chunks) * WARM_SHARE)

    def give(given: Sequence[Chunk]) -> None:
        for chunk in given:
            client, data = clients[chunk.connection], chunk.data
            while data:
                buffer = client.get_buffer(READ_BYTES)
                part = data[: len(buffer)]
                buffer[: len(part)] = part
                client.buffer_updated(len(part))
                data = data[len(part) :]

    give(chunks[:warm])
    calls = sum(client.streams_seen for client in clients)
    gc.collect()
    begun_ns = time.thread_time_ns()
    if profile is not None:
        profile.runcall(give, chunks[warm:])
    else:
        give(chunks[warm:])
    spent_s = (time.thread_time_ns() - begun_ns) / 1e9
    if any(socket.is_closing() for socket in sockets):
        raise RuntimeError("the transport closed a connection of the generator")
    return sum(client.streams_seen for client in clients) - calls, len(chunks) - warm, spent_s


async def measure(scenario: Scenario, options: argparse.Namespace) -> Row:
    """One scenario; on a loop, because connections ask for the running one."""
    chunks = await record(scenario, options.calls)
    profile = cProfile.Profile() if options.profile else None
    runs = [replay(chunks, profile) for _ in range(1 if options.profile else options.rounds)]
    if profile is not None:
        print(scenario.name)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    calls, reads, _ = runs[0]
    best_s = min(spent_s for _, _, spent_s in runs)
    return Row(scenario.name, calls, round(calls / reads, 1), round(best_s * 1e6 / calls, 2))


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=40_000, help="recorded calls of each scenario")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, and spoil the figures")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    asked = [each for each in SCENARIOS if options.only in each.name and "-rate" not in each.arguments]
    rows = [asyncio.run(measure(scenario, options)) for scenario in asked]
    tables.show("processor time of a call without socket and event loop", rows)
    machine.write(options.out / "replay.json", {"rounds": options.rounds, "rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
