"""Distribution: what a change costs the operator, its clients and the calls that are answered meanwhile.

    python -m tests.benchmarks.bench_xds [--policies 5000] [--changes 10] [--seconds 8] [--rounds 3]

Policies have five rules each and a domain of their own. `push` is one change to `clients` that only speak the protocol;
`replica` is the processor time of compiling in the service's own child; `hold` is how long the serving process' loop is
held, in processor time, which a busy machine does not change; `calls` is the latency of 10,000 calls per
second to a service in which changes never stop.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ratelimit_operator.plan.distribution import Distribution, Resource, distribution_of, resource_of
from ratelimit_operator.xds.forms import form_of
from ratelimit_operator.xds.server import XdsServer, XdsSettings
from ratelimit_service.clock import Clock
from ratelimit_service.limiter.engine import OWN_STORE, Limiter
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.decode import decode, decode_manifest
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.sources.contract import Applied
from ratelimit_service.sources.xds.compiled import CompiledSet, compile_set
from ratelimit_service.sources.xds.source import XdsSource
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE
from ratelimit_service.xds_address import XdsAddress, parse_servers
from tests.benchmarks import machine, processes, tables
from tests.benchmarks.bench_disturbed import Row, in_rounds
from tests.benchmarks.service_load import POLICIES, server

RULES = 5
PATIENCE_S = 120.0


class Push(msgspec.Struct, frozen=True):
    """One change of one policy, to all clients; medians, and the worst of all changes.

    Attributes:
        first_s: From the first set published to all clients having it.
        acked_ms, worst_acked_ms: From a change published to all clients having accepted it, on one loop.
        server_ms: Processor time of the operator's process for it.
        sent_mib: Over all streams.
        idle_bytes: Sent in a second in which nothing changes.
    """

    policies: int
    clients: int
    first_s: float
    acked_ms: float
    worst_acked_ms: float
    server_ms: float
    sent_mib: float
    idle_bytes: int


class Replica(msgspec.Struct, frozen=True):
    """Processor time of the service's child for a response, decoding and compiling; medians."""

    policies: int
    whole_ms: float
    one_change_ms: float
    unchanged_ms: float


def resource(number: int, requests: int) -> Resource:
    """Policy `p<number>` of five rules."""
    rules = [
        {
            "name": f"rule-{rule}",
            "match": [{"key": "plan", "value": f"plan-{rule}"}, {"key": "user", "type": "Any"}],
            "limits": [{"requests": requests, "window": "1m"}],
        }
        for rule in range(RULES)
    ]
    found, problems = decode_manifest(
        {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "RateLimitPolicy",
            "metadata": {"name": f"p{number}", "namespace": f"team-{number % 200}"},
            "spec": {"domain": f"team-{number % 200}.p{number}", "rules": rules},
        }
    )
    assert found is not None, problems
    return resource_of(found)


class Operator:
    """A server on a loop of its own, with a set of which one policy changes at a time."""

    def __init__(self, policies: int, beside: tuple[Resource, ...] = ()) -> None:
        self._resources = [*beside, *(resource(number, 5) for number in range(policies))]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = self._do(self._start())
        self._turn = 0

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _start(self) -> XdsServer:
        server = XdsServer(XdsSettings(address="127.0.0.1:0"))
        await server.start()
        server.serve(serving=True)
        return server

    def publish(self, changed: Distribution) -> None:
        async def give() -> None:
            self.server.publish(changed)

        self._do(give())

    def distribution(self) -> Distribution:
        return distribution_of(self._resources)

    def changed(self) -> Distribution:
        """The set with one more policy changed; the building of it is the compiler's work, not the server's."""
        self._turn += 1
        place = len(self._resources) - 1 - self._turn % 100
        self._resources[place] = resource(10_000 + place, 5 + self._turn)
        return self.distribution()

    def until(self, holds: Callable[[], bool]) -> None:
        """Look on the server's own loop, rarely enough not to be what is measured."""

        async def look() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():  # noqa: ASYNC110 — the callback is not what is measured
                    await asyncio.sleep(0.002)

        self._do(look())

    def is_synced(self, clients: int) -> bool:
        nodes = self.server.nodes()
        return len(nodes) == clients and all(node.is_synced for node in nodes.values())

    def close(self) -> None:
        self._do(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def push(policies: int, clients: int, changes: int) -> Push:
    """See `Push`."""
    operator = Operator(policies)
    command = [sys.executable, "-m", "tests.benchmarks.xds_clients", operator.server.address, str(clients)]
    with subprocess.Popen(command) as process:
        try:
            operator.until(lambda: operator.server.stats.streams == clients)
            began = time.monotonic()
            operator.publish(operator.distribution())
            operator.until(lambda: operator.is_synced(clients))
            first_s = time.monotonic() - began
            acked, cpu, sent = [], [], []
            for _ in range(changes):
                changed = operator.changed()
                before, cpu_s, began = operator.server.stats.response_bytes, time.process_time(), time.monotonic()
                operator.publish(changed)
                operator.until(lambda: operator.is_synced(clients))
                acked.append((time.monotonic() - began) * 1e3)
                cpu.append((time.process_time() - cpu_s) * 1e3)
                sent.append((operator.server.stats.response_bytes - before) / 2**20)
            quiet = operator.server.stats.response_bytes
            time.sleep(1)
            idle_bytes = operator.server.stats.response_bytes - quiet
        finally:
            process.terminate()
            operator.close()
    return Push(
        policies=policies,
        clients=clients,
        first_s=round(first_s, 2),
        acked_ms=round(statistics.median(acked), 1),
        worst_acked_ms=round(max(acked), 1),
        server_ms=round(statistics.median(cpu), 1),
        sent_mib=round(statistics.median(sent), 2),
        idle_bytes=idle_bytes,
    )


def replica(policies: int, changes: int) -> Replica:
    """See `Replica`."""
    resources = [form_of(resource(number, 5)).packed for number in range(policies)]
    others = [form_of(resource(number, 6)).packed for number in range(changes)]
    whole_ms, compiled = timed(CompiledSet(), resources)
    one, same = [], []
    for place, other in enumerate(others):
        resources = [*resources[:place], other, *resources[place + 1 :]]
        spent_ms, compiled = timed(compiled, resources)
        one.append(spent_ms)
        same.append(timed(compiled, resources)[0])
    return Replica(policies, round(whole_ms), round(statistics.median(one), 2), round(statistics.median(same), 2))


def timed(before: CompiledSet, resources: list[bytes]) -> tuple[float, CompiledSet]:
    """Milliseconds of processor time, and what was compiled."""
    began_s = time.process_time()
    compiled = compile_set(before, RESOURCE_TYPE, resources, CompileOptions())
    spent_ms = (time.process_time() - began_s) * 1e3
    assert isinstance(compiled, CompiledSet)
    return spent_ms, compiled


class Hold(msgspec.Struct, frozen=True):
    """How long the serving process' loop is held while it takes sets: processor time of single callbacks.

    Every rule has been met by a request before, so that what remembers them has something to forget.

    Attributes:
        first_ms: The longest while the first set comes, when nothing is answered yet.
        change_ms: The longest of all changes.
        typical_ms: The longest of one change, median over the changes.
    """

    policies: int
    changes: int
    first_ms: float
    change_ms: float
    typical_ms: float


class Told:
    """Takes what a source tells, and says when."""

    def __init__(self) -> None:
        self.loads = 0

    def load_succeeded(self, applied: Applied, duration_us: int) -> None:
        self.loads += 1

    def load_failed(self, problems: Any, duration_us: int) -> None:
        raise AssertionError(problems)

    def stream_changed(self, connected: bool, address: str, reason: str) -> None:
        pass

    def source_told(self, message: str) -> None:
        pass


def hold(policies: int, changes: int) -> Hold:
    """See `Hold`."""
    operator = Operator(policies)
    longest = [0.0]
    run = asyncio.events.Handle._run

    def timed_run(handle: asyncio.Handle) -> None:
        armed, began_s = len(longest), time.thread_time()
        run(handle)
        # What began before a measurement does not count in it.
        if threading.current_thread() is threading.main_thread() and armed == len(longest):
            longest[-1] = max(longest[-1], (time.thread_time() - began_s) * 1e3)

    asyncio.events.Handle._run = timed_run  # type: ignore[method-assign]
    try:
        asyncio.run(_hold(operator, changes, longest))
    finally:
        asyncio.events.Handle._run = run  # type: ignore[method-assign]
        operator.close()
    first, *rest = longest
    return Hold(policies, changes, round(first, 2), round(max(rest), 2), round(statistics.median(rest), 2))


async def _hold(operator: Operator, changes: int, longest: list[float]) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock, max_keys=1_000_000, max_bytes=2**30)
    limiter = Limiter({OWN_STORE: store}, LimiterSettings(), CounterTable(20_000))
    told = Told()

    def apply(snapshot: Snapshot) -> Applied:
        limiter.apply(snapshot)
        return Applied(snapshot.version)

    address = XdsAddress(parse_servers(f"xds://{operator.server.address}"), "bench")
    source = XdsSource(address, apply, CompileOptions(), told)
    await source.start()
    await asyncio.to_thread(operator.publish, operator.distribution())
    await _until(lambda: told.loads == 1)
    await asyncio.sleep(1)
    for change in range(changes):
        for number in range(len(operator.distribution().resources)):
            _meet(limiter, clock, number)
        changed = operator.changed()
        longest.append(0.0)
        await asyncio.to_thread(operator.publish, changed)
        await _until(lambda wanted=change + 2: told.loads == wanted)
        # What was in force is let go in the background.
        await asyncio.sleep(0.2)
    await source.close()


def _meet(limiter: Limiter, clock: Clock, number: int) -> None:
    """Requests that each rule of a policy answers; not within a callback that is measured."""
    domain = f"team-{number % 200}.p{number}".encode()
    for rule in range(RULES):
        entries = ((b"plan", f"plan-{rule}".encode()), (b"user", b"ann"))
        now = clock.read()
        limiter.decide(
            encode_request(Request(domain, (Descriptor(entries),))), now, now.boot_us + 10_000, lambda _: None
        )


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.002)


def calls(policies: int, seconds: float, rounds: int) -> list[Row]:
    """Latency while changes never stop, beside the same service left alone."""
    objects, _ = decode([SourceFile(str(path), path.read_bytes()) for path in sorted(POLICIES.rglob("*.yaml"))])
    loaded = tuple(resource_of(each) for each in objects if isinstance(each, RateLimitPolicy))
    operator = Operator(policies, loaded)
    operator.publish(operator.distribution())
    try:
        flags = ("--policies", f"xds://{operator.server.address}")
        with server("native", core=processes.cores().server, policies=(), flags=flags) as target:
            operator.until(lambda: operator.is_synced(1))

            def change() -> None:
                operator.publish(operator.changed())
                operator.until(lambda: operator.is_synced(1))
                time.sleep(0.2)

            steps = {
                f"{policies:,} policies, quiet": None,
                f"{policies:,} policies, one changes again and again": change,
            }
            return in_rounds(target, (), steps, seconds, rounds)
    finally:
        operator.close()


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=5_000)
    parser.add_argument("--changes", type=int, default=10, help="of which medians are told")
    parser.add_argument("--seconds", type=float, default=8, help="measured time of each state in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    sizes = sorted({options.policies // 5, options.policies})
    pushes = [push(size, clients, options.changes) for size in sizes for clients in (3, 30)]
    tables.show("one change to all clients", pushes)
    replicas = [replica(size, options.changes) for size in sizes]
    tables.show("compiling in a replica's child", replicas)
    holds = [hold(size, options.changes) for size in sizes]
    tables.show("longest callback of the serving process while a set is taken; asked: < 2 ms", holds)
    rows = calls(options.policies, options.seconds, options.rounds)
    tables.show("10,000 calls/s, open loop; p99 asked: < 2 ms", rows)
    facts = {"changes": options.changes, "seconds": options.seconds, "rounds": options.rounds}
    measured = (("push", pushes), ("replica", replicas), ("hold", holds), ("calls", rows))
    figures = {name: msgspec.to_builtins(found) for name, found in measured}
    machine.write(options.out / "xds.json", {**facts, **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
