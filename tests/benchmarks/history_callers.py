"""One process that calls a limiter over Redis and keeps what it saw; `compare_histories` starts several of them.

Runs in the environment of the limiter that it is told to call: only the standard library is imported at the top.
Its plan comes as JSON on standard input; one line [sent µs, answered µs, admitted] for each call goes out.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

KEY = "caller-7"
STORM_S = 0.12
DEADLINE_US = 1_000_000
"""Long: what is measured is the law, not how soon a busy machine answers."""


Limiter = Callable[[], bool]


def now_us() -> int:
    """The machine's wall clock, which all processes and Redis share."""
    return time.time_ns() // 1_000


def pauses(plan: dict) -> list[float]:
    """Wall times of calls: a trickle, and storms around the edges of windows."""
    chance = random.Random(plan["seed"])
    begins_s, ends_s = plan["begins_s"], plan["begins_s"] + plan["seconds"]
    times = [chance.uniform(begins_s, ends_s) for _ in range(int(plan["seconds"] * plan["trickle"]))]
    edge_s = begins_s + plan["window_s"]
    while edge_s < ends_s:
        times += [edge_s + chance.uniform(-STORM_S, STORM_S) for _ in range(plan["storm"])]
        edge_s += plan["window_s"] * chance.choice([1, 1, 2])
    return sorted(times)


def limits_of(plan: dict) -> Limiter:
    """`limits`: its strategy of that name."""
    from limits import RateLimitItemPerSecond, storage, strategies

    strategy = getattr(strategies, plan["strategy"])(storage.RedisStorage(plan["url"]))
    item = RateLimitItemPerSecond(plan["requests"], plan["window_s"])
    return lambda: strategy.hit(item, KEY)


def throttled_of(plan: dict) -> Limiter:
    """`throttled-py`: its limiter of that name."""
    from throttled import Throttled, rate_limiter, store

    quota = rate_limiter.per_duration(timedelta(seconds=plan["window_s"]), plan["requests"], burst=plan["burst"])
    shared = store.RedisStore(server=plan["url"])
    limiter = Throttled(key=KEY, using=plan["strategy"], quota=quota, store=shared)
    return lambda: not limiter.limit(KEY, 1).limited


def call(plan: dict, admits: Limiter) -> list[tuple[int, int, bool]]:
    """Call at the planned times, one after the other; one that is late is made at once."""
    history = []
    for at_s in pauses(plan):
        time.sleep(max(0.0, at_s - time.time()))
        sent_us = now_us()
        admitted = admits()
        history.append((sent_us, now_us(), admitted))
    return history


async def call_ours(plan: dict) -> list[tuple[int, int, bool]]:
    """The same calls of the store of this service."""
    from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit, LimitSettings
    from ratelimit_service.clock import Clock
    from ratelimit_service.quota.leases.book import LeaseSettings
    from ratelimit_service.quota.leases.replica import ReplicaSettings
    from ratelimit_service.quota.redis.store import RedisStore
    from ratelimit_service.quota.store import Charge
    from ratelimit_service.redis_server.address import parse_store_url

    clock = Clock()
    limit = Limit(Algorithm(plan["law"]), plan["requests"], plan["window_s"] * 1_000_000, plan["burst"])
    settings = ReplicaSettings(leases=LeaseSettings(exact=plan["strategy"] == "exact"), slots=plan["processes"])
    store = RedisStore(parse_store_url(plan["url"]), settings, clock)
    store.apply({b"limit": LimitSettings(limit, "domain", "rule", FailureMode.CLOSED)})
    await store.start()
    charges = (Charge(b"limit", limit, KEY.encode(), 1),)

    def admits() -> Awaitable[bool]:
        decided = asyncio.get_running_loop().create_future()
        now = clock.read()
        outcomes = store.charge(charges, now)
        if outcomes is not None:
            decided.set_result(not outcomes[0].over)
        else:
            store.charge_later(charges, now.boot_us + DEADLINE_US, lambda said: decided.set_result(not said[0].over))
        return decided

    history = []
    for at_s in pauses(plan):
        await asyncio.sleep(max(0.0, at_s - time.time()))
        sent_us = now_us()
        admitted = await admits()
        history.append((sent_us, now_us(), admitted))
    await store.close()
    return history


def main() -> None:
    """Follow the plan."""
    plan = json.load(sys.stdin)
    # A host whose clock is off: what it reads is, and what it keeps of its calls is not.
    read, skew_s = time.time, plan["skew_s"]
    time.time = lambda: read() + skew_s
    plan["begins_s"] += skew_s
    if plan["limiter"] == "tidegate":
        history = asyncio.run(call_ours(plan))
    else:
        history = call(plan, {"limits": limits_of, "throttled-py": throttled_of}[plan["limiter"]](plan))
    json.dump(history, sys.stdout)


if __name__ == "__main__":
    main()
