"""The loads that the service is measured under, and what its design asks of each."""

from __future__ import annotations

import msgspec

CLOSED = ("-conns", "4", "-streams", "16")
FRESH = (*CLOSED, "-fresh", "-descriptor", "visitor={}")
OPEN = ("-conns", "4", "-streams", "1024", "-rate", "10000")
TWO_DESCRIPTORS = (
    "-descriptor", "plan=gold,method=POST,account={}",
    "-descriptor", "route=pay,region=eu,address={}",
)  # fmt: skip
FULL_STORE_KEYS = 50_000


class Scenario(msgspec.Struct, frozen=True):
    """A named load.

    Attributes:
        name: Shown in tables and JSON.
        arguments: Of the generator.
        note: What it is for.
        reach: What the design asks of the native transport on a core of its reference machine; empty: nothing.
        flags: Of the service.
        seconds: Measured time.
    """

    name: str
    arguments: tuple[str, ...]
    note: str
    reach: str = ""
    flags: tuple[str, ...] = ()
    seconds: float = 5


SCENARIOS = (
    Scenario("zipf 4x16", CLOSED, "closed loop, 10,000 keys, Zipf 1.1", "150,000/s"),
    Scenario("uniform 4x16", (*CLOSED, "-zipf", "0", "-keys", "100000"), "closed loop, 100,000 keys, uniform"),
    Scenario("new keys 4x16", FRESH, "closed loop, every key new, window 1 s, bounds as they are set", "90,000/s"),
    Scenario(
        "new keys 4x16, full store",
        FRESH,
        f"the same with {FULL_STORE_KEYS:,} keys at the most: what comes when it is full is denied",
        flags=("--store-max-keys", str(FULL_STORE_KEYS)),
    ),
    Scenario("sliding 4x16", (*CLOSED, "-descriptor", "client={}"), "sliding window, Zipf 1.1"),
    Scenario("bucket 4x16", (*CLOSED, "-descriptor", "token={}"), "token bucket, Zipf 1.1"),
    Scenario(
        "own headers 4x16",
        (*CLOSED, "-traceparent", "-timeout"),
        "each call with its own traceparent and grpc-timeout",
        "80,000/s",
    ),
    Scenario("8x1", ("-conns", "8", "-streams", "1"), "one call in flight on each of 8 connections", "50,000/s"),
    Scenario(
        "two descriptors 4x16", (*CLOSED, *TWO_DESCRIPTORS), "2 descriptors of 3 entries, 2 limits each", "100,000/s"
    ),
    Scenario("open loop 1,000/s", ("-conns", "4", "-streams", "256", "-rate", "1000"), "latency at 1,000/s"),
    Scenario("open loop 10,000/s", OPEN, "latency at 10,000/s", "p50 0.2, p95 0.4, p99 0.6 ms"),
)
