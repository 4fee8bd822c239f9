"""Measure how long an event loop is held while a large set of policies is loaded and reloaded (DECISIONS 35).

    python -m tests.benchmarks.bench_reload --policies 1000

A probe notes, for each turn of the loop, how much later it came than it should have.
Prints one JSON object, and keeps it in build/bench.
The target: no stall above 2 ms that an empty run on the same machine does not show too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Self

from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.sources.contract import Applied
from ratelimit_service.sources.files import FileSource
from tests.benchmarks import machine

_POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: policy-{number}, namespace: team-{team}}}
spec:
  domain: team-{team}.service-{number}
  rules:
  - name: per-user
    match: [{{key: user, type: Any}}]
    limits: [{{requests: {requests}, window: 10s}}]
  - name: gold-writes
    match: [{{key: plan, value: gold}}, {{key: method, value: POST}}, {{key: tenant, type: Any}}]
    limits:
    - {{requests: 600, window: 1m, algorithm: TokenBucket, burst: 200}}
    - {{requests: 100000, calendar: {{unit: Month, timeZone: Europe/Zurich}}}}
  - {{name: health, match: [{{key: path, value: /healthz}}], action: Allow}}
  - name: partners
    mode: Shadow
    match: [{{key: api_key, type: Prefix, value: partner-, bucket: Shared}}]
    limits: [{{requests: 200000, window: 1h}}]
"""


def write_policies(folder: Path, count: int, requests: int) -> None:
    for number in range(count):
        text = _POLICY.format(number=number, team=number % 50, requests=requests)
        target = folder / f"policy-{number:05}.yaml"
        temporary = folder / f".{target.name}"
        temporary.write_text(text)
        temporary.rename(target)


class Probe:
    """Turns of the loop that came late, in microseconds."""

    def __init__(self) -> None:
        self.late_us: list[int] = []
        self.busy_us: list[int] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            start_ns, start_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            await asyncio.sleep(0)
            self.late_us.append((time.perf_counter_ns() - start_ns) // 1_000)
            # Time of this thread only: without what other processes on a busy machine took from it.
            self.busy_us.append((time.thread_time_ns() - start_cpu_ns) // 1_000)

    def summary(self) -> dict[str, int]:
        ordered = sorted(self.late_us)
        last = len(ordered) - 1
        return {
            "turns": len(ordered),
            "p99_us": ordered[last * 99 // 100],
            "p9999_us": ordered[last * 9_999 // 10_000],
            "max_us": ordered[last],
            "over_2_ms": sum(late > 2_000 for late in ordered),
            "max_busy_us": max(self.busy_us),
            "busy_over_2_ms": sum(busy > 2_000 for busy in self.busy_us),
        }


async def measure(count: int) -> dict[str, object]:
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_policies(folder, count, 5)
        applied: list[Snapshot] = []
        taken: list[str] = []

        def apply(snapshot: Snapshot) -> Applied:
            applied[:] = [snapshot]
            taken.append(snapshot.version)
            return Applied(snapshot.version)

        async with Probe() as idle:
            await asyncio.sleep(3)
        result["idle"] = idle.summary()
        source = FileSource([name], apply)
        async with Probe() as first:
            await source.start()
        result["start"] = {**first.summary(), "load_ms": source.last_duration_us // 1_000}
        for label, changed in (("reload_all", count), ("reload_one", 1)):
            before = len(taken)
            requests = 6 if label == "reload_all" else 7
            await asyncio.to_thread(write_policies, folder, changed, requests)
            written_ns = time.perf_counter_ns()
            async with Probe() as probe:
                while len(taken) == before:  # noqa: ASYNC110 — what is measured must not be told
                    await asyncio.sleep(0.005)
                taken_ms = (time.perf_counter_ns() - written_ns) // 1_000_000
            load_ms = source.last_duration_us // 1_000
            result[label] = {**probe.summary(), "load_ms": load_ms, "change_to_applied_ms": taken_ms}
            await asyncio.sleep(2.5)
        await source.close()
        rules = sum(len(domain.rules) for domain in applied[-1].domains.values())
        result["rules"] = rules
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Loop stalls while policies reload; JSON")
    parser.add_argument("--policies", type=int, default=1_000)
    parser.add_argument("--freeze", action="store_true", help="freeze the heap first, as the service does")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop, as the service does")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    arguments = parser.parse_args()
    if arguments.freeze:
        gc.collect()
        gc.freeze()
    if arguments.uvloop:
        import uvloop

        result = uvloop.run(measure(arguments.policies))
    else:
        result = asyncio.run(measure(arguments.policies))
    figures = {"policies": arguments.policies, **result}
    print(json.dumps(figures))
    machine.write(arguments.out / "reload.json", figures)


if __name__ == "__main__":
    main()
