"""How long a scrape of 50,000 series holds the event loop, as JSON.

`slices`: rendering alone, per slice. `server`: a scrape over a socket by a client in another process, with the loop's
stalls as a task sees them that does nothing but yield. `baseline`: the same for a page of three bytes, which is
what the machine itself does to the loop. Run it as `python -m tests.benchmarks.bench_scrape`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import sys
import time
from pathlib import Path

import uvloop

from ratelimit_service.addresses import Address
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.transport.admin import AdminServer
from ratelimit_service.transport.admin_pages import ROUTES
from ratelimit_service.transport.admin_service import Readiness
from tests.benchmarks import machine

SERIES_PER_RULE = 5
_SCRAPER = "import sys, urllib.request; print(len(urllib.request.urlopen(sys.argv[1]).read()))"


class ScrapedService:
    """An `AdminView` that has metrics only."""

    version = "0"

    def __init__(self, metrics: Metrics) -> None:
        self.render_metrics = metrics.render

    def readiness(self) -> Readiness:
        return Readiness(ready=True)

    def snapshot(self) -> Snapshot | None:
        return None


def filled(series: int) -> Metrics:
    """Metrics with `series` series of rules."""
    metrics = Metrics("0", max_series=series)
    for number in range(series // SERIES_PER_RULE):
        counters = metrics.counters.rule("shop.checkout", f"shop/checkout-{number}/per-user")
        counters.ok = counters.over = counters.shadow_over = counters.hits = counters.near_limit_hits = number + 1_000
    return metrics


def summary(durations_s: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    ordered = sorted(durations_s)
    return {
        "count": len(ordered),
        "p50_ms": round(ordered[len(ordered) // 2] * 1e3, 3),
        "p99_ms": round(ordered[len(ordered) * 99 // 100] * 1e3, 3),
        "max_ms": round(ordered[-1] * 1e3, 3),
        "sum_ms": round(sum(ordered) * 1e3, 1),
    }


def slices(metrics: Metrics) -> dict[str, float]:
    """Time of each slice of one scrape."""
    durations_s, size = [], 0
    renderer = metrics.render()
    while True:
        start = time.perf_counter()
        piece = next(renderer, None)
        if piece is None:
            return {**summary(durations_s), "bytes": size}
        durations_s.append(time.perf_counter() - start)
        size += len(piece)


async def over_a_socket(metrics: Metrics, scrapes: int, page: str) -> dict[str, object]:
    """Stalls of the loop while a process asks for `page`."""
    server = AdminServer([Address(host="127.0.0.1", port=0)], ScrapedService(metrics), routes=ROUTES)
    await server.start()
    gaps_s: list[float] = []

    async def watch() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps_s.append(now - last)
            last = now

    took_s = []
    for _ in range(scrapes):
        arguments = ("-c", _SCRAPER, f"http://{server.addresses[0]}{page}")
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        watcher = asyncio.ensure_future(watch())
        start = time.perf_counter()
        await process.communicate()
        took_s.append(time.perf_counter() - start)
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
    await server.close()
    return {
        "scrapes": scrapes,
        "scrape_with_process_start_ms": round(sum(took_s) / scrapes * 1e3, 1),
        "stalls": summary(gaps_s),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=50_000)
    parser.add_argument("--scrapes", type=int, default=5)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    metrics = filled(options.series)
    gc.collect()
    gc.freeze()  # as the service does
    list(metrics.render())
    result = {
        "series": options.series,
        "slices": slices(metrics),
        "server": uvloop.run(over_a_socket(metrics, options.scrapes, "/metrics")),
        "baseline": uvloop.run(over_a_socket(metrics, options.scrapes, "/livez")),
    }
    print(json.dumps(result))
    machine.write(options.out / "scrape.json", result)


if __name__ == "__main__":
    main()
