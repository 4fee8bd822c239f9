"""How many decisions need no round trip as replicas and keys grow; real replicas on a virtual clock.

python -m tests.benchmarks.bench_growth [--requests 15000] [--out build/bench] [--plot docs/images/growth.svg]

Requests come over one window, at random instants and replicas, for keys by Zipf 1.0. A request is drawn, not a key, so
100,000,000 keys cost no more than 1,000. Round trips are counted by orders, before the group commit puts them together.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit, LimitSettings
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.membership import HEARTBEAT_US, Beat
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.redis.twin import SharedState
from ratelimit_service.quota.store import Charge, Outcome, Source
from support.clocks import ManualClock
from support.replicas import SharedOrders, SharedStore
from support.schedulers import ManualScheduler
from tests.benchmarks import machine, tables

WINDOW_US: Final = 60_000_000
START_US: Final = 1_700_000_040_000_000
TICK_US: Final = 50_000
IDENTITY: Final = b"rule/fixed/60"
LOCAL: Final = frozenset({Source.LEASE, Source.STANDING})
REPLICAS: Final = (1, 2, 4, 10, 30, 100)
KEYS: Final = (1_000, 100_000, 1_000_000, 100_000_000)


class Row(msgspec.Struct, frozen=True):
    """One size.

    Attributes:
        limit, share_percent: Hits in a minute for each key, and the part of it that slots own without asking.
        hits_per_key: Requests by keys that were asked for at all.
        local_percent: Decisions without a round trip.
        orders_per_decision: Takes, looks and returns.
        under_percent: Requests denied that one exact counter would have admitted, of those that it would have.
        over: Hits beyond the limit, of all keys together.
        decision_us: Processor time of replica and store together.
    """

    replicas: int
    keys: int
    limit: int
    share_percent: int
    requests: int
    hits_per_key: float
    local_percent: float
    orders_per_decision: float
    under_percent: float
    over: int
    decision_us: float


class World:
    """Replicas that share one state."""

    def __init__(self, replicas: int, limit: Limit, share_percent: int) -> None:
        self.clock = ManualClock(wall_us=START_US - 2 * WINDOW_US)
        self.scheduler = ManualScheduler()
        state = SharedState()
        settings = ReplicaSettings(leases=LeaseSettings(), slots=replicas, standing_percent=share_percent)
        self.orders = [SharedOrders(state, self.clock, self.scheduler) for _ in range(replicas)]
        self.stores = [SharedStore(settings, orders, self.clock, self.scheduler) for orders in self.orders]
        in_force = {IDENTITY: LimitSettings(limit, "bench", "rule", FailureMode.CLOSED)}
        for store in self.stores:
            store.apply(in_force)
        # A slot that is new owns nothing in the window in which it was taken.
        for _ in range(2 * WINDOW_US // HEARTBEAT_US):
            self.beat()
            self.clock.advance(HEARTBEAT_US)

    def beat(self) -> None:
        """Every replica's heartbeat is answered."""
        now, live = self.clock.read(), len(self.stores)
        for slot, store in enumerate(self.stores):
            beat = Beat(slot, slot, live, in_form=True, wall_us=now.wall_us)
            store.membership.take_in(beat, now.boot_us, now.boot_us)
            store.allowances.time.observe(now.wall_us, now.boot_us, now.boot_us)
            store.book.replicas = live

    def run_until(self, boot_us: int) -> None:
        """Let alarms ring, and carry what waits."""
        for store in self.stores:
            store.turns.run_until(self.clock, max(boot_us, self.clock.boot_us))

    def ask(self, replica: int, charge: Charge) -> Outcome:
        """Decide one request."""
        store, now, told = self.stores[replica], self.clock.read(), list[Outcome]()
        asked = (charge,)
        outcomes = store.charge(asked, now)
        if outcomes is None:
            store.charge_later(asked, now.boot_us + 10_000_000, told.extend)
            self.scheduler.run()
            return told[0]
        if len(self.scheduler):
            self.scheduler.run()
        return outcomes[0]


def measure(replicas: int, keys: int, limit_hits: int, share_percent: int, requests: int) -> Row:
    """One row; seeded."""
    chance = random.Random(1)
    limit = Limit(Algorithm.FIXED_WINDOW, limit_hits, WINDOW_US, limit_hits)
    world = World(replicas, limit, share_percent)
    begun_us = world.clock.boot_us
    # Rank by Zipf 1.0: the logarithm of the rank is even.
    drawn = [
        (chance.randrange(WINDOW_US - TICK_US), chance.randrange(replicas), int(keys ** chance.random()))
        for _ in range(requests)
    ]
    drawn.sort()
    local = admitted = 0
    asked: Counter[int] = Counter()
    passed: Counter[int] = Counter()
    next_tick_us, next_beat_us = 0, 0
    spent_s = time.process_time()
    for at_us, replica, key in drawn:
        while next_tick_us <= at_us:
            world.run_until(begun_us + next_tick_us)
            next_tick_us += TICK_US
            if next_beat_us <= next_tick_us:
                world.beat()
                next_beat_us += HEARTBEAT_US
        world.clock.advance(max(0, begun_us + at_us - world.clock.boot_us))
        outcome = world.ask(replica, Charge(IDENTITY, limit, b"%d" % key, 1))
        local += outcome.source in LOCAL
        admitted += not outcome.over
        asked[key] += 1
        passed[key] += not outcome.over
    spent_s = time.process_time() - spent_s
    due = sum(min(limit_hits, hits) for hits in asked.values())
    orders = sum(len(each.sent) for each in world.orders)
    return Row(
        replicas=replicas,
        keys=keys,
        limit=limit_hits,
        share_percent=share_percent,
        requests=requests,
        hits_per_key=round(requests / len(asked), 1),
        local_percent=round(100 * local / requests, 2),
        orders_per_decision=round(orders / requests, 3),
        under_percent=round(100 * (due - admitted) / due, 3),
        over=sum(max(0, hits - limit_hits) for hits in passed.values()),
        decision_us=round(spent_s * 1e6 / requests, 1),
    )


def plot(rows: list[Row], target: Path) -> None:
    """Local decisions over replicas, a line for each number of keys."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tidegate"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, layout="constrained")
    for keys in KEYS:
        some = [row for row in rows if row.keys == keys and not row.share_percent and row.limit == 100]
        label = f"{keys:,} keys"
        axes[0].plot([row.replicas for row in some], [row.local_percent for row in some], marker="o", label=label)
        axes[1].plot([row.replicas for row in some], [row.orders_per_decision for row in some], marker="o", label=label)
    for each, what in zip(axes, ("decisions without a round trip, %", "orders for each decision"), strict=True):
        each.set_xscale("log")
        each.set_xticks(REPLICAS, [str(number) for number in REPLICAS])
        each.set_xlabel("replicas")
        each.set_ylabel(what)
        each.set_ylim(bottom=0)
        each.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=15_000)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--plot", type=Path, default=None, help="an SVG of the rows without a standing share")
    options = parser.parse_args()
    rows = [measure(replicas, keys, 100, 0, options.requests) for keys, replicas in itertools.product(KEYS, REPLICAS)]
    # The case that the design names: three hits for each key and window, 3 replicas.
    rows += [measure(3, options.requests // 3, 100, percent, options.requests) for percent in (0, 3, 6, 9, 12, 25, 50)]
    # And at the size of the study that the design's figure is from, where more of the load is on keys that are used up.
    many = 20 * options.requests
    rows += [measure(3, many // 3, 100, percent, many) for percent in (6, 9, 12)]
    tables.show("decisions without a round trip, by simulation", rows)
    machine.write(options.out / "growth.json", {"rows": msgspec.to_builtins(rows)})
    if options.plot is not None:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
