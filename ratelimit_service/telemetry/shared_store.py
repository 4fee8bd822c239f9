"""Metrics of a store that replicas share: what is leased, sent and lost, and how its servers are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ratelimit_service.telemetry.exposition import sample, seconds_text
from ratelimit_service.telemetry.metric import Kind, Metric, Together

if TYPE_CHECKING:
    # What it reads; importing it for more than types would bring the Redis library along.
    from ratelimit_service.quota.redis.batch import BatchStats
    from ratelimit_service.quota.redis.node_stats import NodeStats
    from ratelimit_service.quota.redis.store import RedisStats

_PROFILE: Final = ("profile",)
_NODE: Final = ("profile", "node")
_FATES: Final = ("granted", "spent", "returned", "forfeited", "stranded")
_GREATEST: Final = Together.GREATEST
_BREAKER_STATES: Final = ("closed", "open", "half_open")

HITS: Final = Metric(
    "tidegate_store_hits_total",
    Kind.COUNTER,
    f"Hits of leases by what became of them: {', '.join(_FATES)}; stranded ones are among returned and forfeited.",
    ("profile", "fate"),
    "hits",
)
LEASES: Final[dict[str, Metric]] = {
    "takes": Metric("tidegate_store_takes_total", Kind.COUNTER, "Takes, spends and looks sent.", _PROFILE, "orders"),
    "returns": Metric("tidegate_store_returns_total", Kind.COUNTER, "Returns sent.", _PROFILE, "orders"),
    "late": Metric(
        "tidegate_store_late_answers_total",
        Kind.COUNTER,
        "Answers that came when the failure mode had already decided.",
        _PROFILE,
        "answers",
    ),
    "lost": Metric("tidegate_store_lost_takes_total", Kind.COUNTER, "Takes never answered.", _PROFILE, "orders"),
    "overfull": Metric(
        "tidegate_store_overfull_total",
        Kind.COUNTER,
        "Keys asked for without being remembered, for want of room.",
        _PROFILE,
        "keys",
    ),
    "masters": Metric(
        "tidegate_store_new_masters_total",
        Kind.COUNTER,
        "Times that the store's memory was not the one before: failover, restart, flush.",
        _PROFILE,
        "changes",
    ),
}
"""Field of `LeaseStats` → its metric."""
DEGRADED: Final = Metric(
    "tidegate_store_degraded_seconds_total",
    Kind.COUNTER,
    "Time in which failure modes decided at least some requests.",
    _PROFILE,
    "seconds",
)
REPLICAS: Final = Metric(
    "tidegate_store_replicas",
    Kind.GAUGE,
    "Replicas last seen alive, this one included.",
    _PROFILE,
    "replicas",
    together=_GREATEST,
)
BATCHES: Final[dict[str, Metric]] = {
    "batches": Metric("tidegate_store_batches_total", Kind.COUNTER, "Round trips.", _PROFILE, "batches"),
    "orders": Metric("tidegate_store_orders_total", Kind.COUNTER, "Orders sent in them.", _PROFILE, "orders"),
    "coalesced": Metric(
        "tidegate_store_coalesced_total", Kind.COUNTER, "Orders carried out with another one.", _PROFILE, "orders"
    ),
    "expired": Metric(
        "tidegate_store_expired_total", Kind.COUNTER, "Orders whose time had passed unsent.", _PROFILE, "orders"
    ),
    "overflowed": Metric(
        "tidegate_store_overflowed_total", Kind.COUNTER, "Orders that found too many waiting.", _PROFILE, "orders"
    ),
}
"""Field of `BatchStats` → its metric."""
BATCH_ENTRIES: Final = Metric(
    "tidegate_store_batch_entries",
    Kind.HISTOGRAM,
    "Entries of a round trip; the sum counts orders, several of which one entry may carry.",
    _PROFILE,
    "entries",
)
NODE_UP: Final = Metric(
    "tidegate_store_node_up", Kind.GAUGE, "1 while a server may be asked.", _NODE, together=Together.LEAST
)
BREAKER: Final = Metric(
    "tidegate_store_breaker_state",
    Kind.GAUGE,
    "1 for the state that a server's breaker is in.",
    (*_NODE, "state"),
    together=_GREATEST,
)
BREAKER_OPENED: Final = Metric(
    "tidegate_store_breaker_opened_total", Kind.COUNTER, "Times that a server's breaker opened.", _NODE, "times"
)
LOST: Final = Metric(
    "tidegate_store_lost_round_trips_total",
    Kind.COUNTER,
    "Round trips lost, by reason.",
    (*_NODE, "reason"),
    "round trips",
)
CONNECTIONS: Final = Metric("tidegate_store_connections", Kind.GAUGE, "Connections to a server.", _NODE, "connections")
CONNECTIONS_LENT: Final = Metric(
    "tidegate_store_connections_lent", Kind.GAUGE, "Of them, those with a round trip under way.", _NODE, "connections"
)
POOL_SIZE: Final = Metric(
    "tidegate_store_pool_size", Kind.GAUGE, "Connections wanted to a server (pool_size).", _NODE, "connections"
)
MAY_EVICT: Final = Metric(
    "tidegate_store_may_evict",
    Kind.GAUGE,
    "1 while a full server may drop counters: set noeviction there.",
    _NODE,
    together=_GREATEST,
)
ROUND_TRIP: Final = Metric(
    "tidegate_store_round_trip_seconds", Kind.HISTOGRAM, "Time of a round trip to a server.", _NODE, "seconds"
)

METRICS: Final = (
    HITS,
    *LEASES.values(),
    DEGRADED,
    REPLICAS,
    *BATCHES.values(),
    BATCH_ENTRIES,
    NODE_UP,
    BREAKER,
    BREAKER_OPENED,
    LOST,
    CONNECTIONS,
    CONNECTIONS_LENT,
    POOL_SIZE,
    MAY_EVICT,
    ROUND_TRIP,
)
"""All of them, in the order of the reference page."""


def shared_store_lines(readings: Sequence[tuple[str, RedisStats]], bounds_us: Sequence[int]) -> Iterator[str]:
    """Header and samples of every family.

    Args:
        readings: By profile.
        bounds_us: Upper bounds of the round-trip buckets.
    """
    if not readings:
        return
    yield HITS.head
    for profile, stats in readings:
        yield from (sample(HITS.name, getattr(stats.leases, fate), profile=profile, fate=fate) for fate in _FATES)
    for field, metric in LEASES.items():
        yield metric.head
        yield from (sample(metric.name, getattr(stats.leases, field), profile=profile) for profile, stats in readings)
    yield DEGRADED.head
    for profile, stats in readings:
        yield f'{DEGRADED.name}{{profile="{profile}"}} {seconds_text(stats.leases.degraded_us)}\n'
    yield REPLICAS.head
    yield from (sample(REPLICAS.name, stats.live or 0, profile=profile) for profile, stats in readings)
    for field, metric in BATCHES.items():
        yield metric.head
        yield from (sample(metric.name, getattr(stats.batches, field), profile=profile) for profile, stats in readings)
    yield BATCH_ENTRIES.head
    for profile, stats in readings:
        yield from _batch_entries(profile, stats.batches)
    nodes = [(profile, node) for profile, stats in readings for node in stats.nodes]
    yield from _node_lines(nodes)
    yield ROUND_TRIP.head
    for profile, node in nodes:
        yield from _round_trips(profile, node, bounds_us)


def _node_lines(nodes: Sequence[tuple[str, NodeStats]]) -> Iterator[str]:
    yield NODE_UP.head
    yield from (sample(NODE_UP.name, int(node.available), profile=p, node=node.endpoint) for p, node in nodes)
    yield BREAKER.head
    for profile, node in nodes:
        for state in _BREAKER_STATES:
            is_in = int(node.breaker.value == state)
            yield sample(BREAKER.name, is_in, profile=profile, node=node.endpoint, state=state)
    yield BREAKER_OPENED.head
    yield from (sample(BREAKER_OPENED.name, node.breaker_opened, profile=p, node=node.endpoint) for p, node in nodes)
    yield LOST.head
    for profile, node in nodes:
        for reason, count in node.lost.items():
            yield sample(LOST.name, count, profile=profile, node=node.endpoint, reason=reason.value)
    yield CONNECTIONS.head
    yield from (sample(CONNECTIONS.name, node.links, profile=p, node=node.endpoint) for p, node in nodes)
    yield CONNECTIONS_LENT.head
    yield from (sample(CONNECTIONS_LENT.name, node.links_lent, profile=p, node=node.endpoint) for p, node in nodes)
    yield POOL_SIZE.head
    yield from (sample(POOL_SIZE.name, node.pool_size, profile=p, node=node.endpoint) for p, node in nodes)
    yield MAY_EVICT.head
    yield from (sample(MAY_EVICT.name, int(node.may_evict), profile=p, node=node.endpoint) for p, node in nodes)


def _batch_entries(profile: str, stats: BatchStats) -> Iterator[str]:
    # Where there is such a store its modules are there too; without one they must not be.
    from ratelimit_service.quota.redis.batch import BATCH_BOUNDS  # noqa: PLC0415

    name, total = BATCH_ENTRIES.name, 0
    for bound, count in zip(BATCH_BOUNDS, stats.sizes, strict=False):
        total += count
        yield f'{name}_bucket{{profile="{profile}",le="{bound}"}} {total}\n'
    yield f'{name}_bucket{{profile="{profile}",le="+Inf"}} {stats.batches}\n'
    yield f'{name}_sum{{profile="{profile}"}} {stats.orders}\n'
    yield f'{name}_count{{profile="{profile}"}} {stats.batches}\n'


def _round_trips(profile: str, node: NodeStats, bounds_us: Sequence[int]) -> Iterator[str]:
    name, total = ROUND_TRIP.name, 0
    where = f'profile="{profile}",node="{node.endpoint}"'
    for bound_us, count in zip(bounds_us, node.round_trip_buckets, strict=False):
        total += count
        yield f'{name}_bucket{{{where},le="{bound_us / 1_000_000!r}"}} {total}\n'
    yield f'{name}_bucket{{{where},le="+Inf"}} {node.round_trips}\n'
    yield f"{name}_sum{{{where}}} {seconds_text(node.round_trip_us)}\n"
    yield f"{name}_count{{{where}}} {node.round_trips}\n"
