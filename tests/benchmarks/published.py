"""What other services were measured at, on the machine that the project's own targets are stated for.

These figures are quoted, not measured by `make bench`: the same load generator, server on one core and generator on the
other, 2 cores, 2026-11-22. Only ratios mean something, and only within that table.
"""

from __future__ import annotations

import msgspec

SOURCE = "published for the reference machine (2 cores, 2026-11-22), not measured in this run"


class Published(msgspec.Struct, frozen=True):
    """One server there; None: not published.

    Attributes:
        server: With its store.
        zipf_calls_per_s: Closed loop, 4 connections × 16 calls, 10,000 keys by Zipf 1.1.
        zipf_p99_ms: Latency of the same.
        new_keys_calls_per_s: The same, every key new.
        single_calls_per_s: 8 connections × 1 call.
        open_p99_ms: Open loop, 10,000/s; None where it could not hold that rate too.
        rss_mib: Memory before and after.
    """

    server: str
    zipf_calls_per_s: int
    zipf_p99_ms: float | None = None
    new_keys_calls_per_s: int | None = None
    single_calls_per_s: int | None = None
    open_p99_ms: float | None = None
    rss_mib: tuple[int, int] | None = None


TABLE = (
    Published("envoyproxy/ratelimit f2fb157 (Go), Redis", 12_900, 10.5, 12_100, 7_600, None, (32, 32)),
    Published("limitador 2981b2b (Rust), memory", 74_400, 1.3, 44_800, 39_800, 0.59, (35, 245)),
    Published("limitador 2981b2b (Rust), redis_cached", 21_700),
    Published("limitador 2981b2b (Rust), redis", 17_600),
    Published("grpc.aio answering a constant (Python 3.11)", 3_400, rss_mib=(40, 40)),
)
