"""How replicas share counts, and what Redis costs."""

from __future__ import annotations

from typing import Final

from tools.dashboards.panels import SELECT, Board, Panel, Query, Row

_S: Final = SELECT
_R: Final = "$__rate_interval"

_STORE: Final = f'{_S}, profile=~"$profile"'
BOARD: Final = Board(
    uid="tidegate-backend",
    title="Tidegate / Backend and leases",
    description="How do replicas share counts, and what does Redis cost? For who runs the platform.",
    probe="tidegate_build_info",
    variables=(("profile", f"label_values(tidegate_store_charges_total{{{_S}}}, profile)", "Profile"),),
    rows=(
        Row(
            "Where decisions come from",
            (
                Panel(
                    "Charges by who decided",
                    "lease and standing need no round trip; batch and exact asked Redis; fallback is a failure mode.",
                    "cps",
                    (Query(f"sum by (source) (rate(tidegate_decision_sources_total{{{_S}}}[{_R}]))", "{{source}}"),),
                ),
                Panel(
                    "Share without a round trip",
                    "The more, the faster; a fall means many new keys or small limits.",
                    "percentunit",
                    (
                        Query(
                            f'sum(rate(tidegate_decision_sources_total{{{_S}, source=~"lease|standing|memory"}}[{_R}])) / '
                            f"sum(rate(tidegate_decision_sources_total{{{_S}}}[{_R}]))",
                            "local",
                        ),
                    ),
                    most=1,
                ),
                Panel(
                    "Hits of leases, by fate",
                    "granted comes in; spent, returned and forfeited go out. Much forfeited: horizons are too long.",
                    "cps",
                    (Query(f"sum by (fate) (rate(tidegate_store_hits_total{{{_STORE}}}[{_R}]))", "{{fate}}"),),
                ),
                Panel(
                    "Orders per round trip",
                    "Group commit: what arrives while a call is under way is the next batch.",
                    "short",
                    (
                        Query(
                            f"sum(rate(tidegate_store_orders_total{{{_STORE}}}[{_R}])) / "
                            f"sum(rate(tidegate_store_batches_total{{{_STORE}}}[{_R}]))",
                            "orders",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Redis",
            (
                Panel(
                    "Round trips",
                    "Time of a round trip to a server, as a heat map.",
                    "s",
                    (
                        Query(
                            f"sum by (le) (rate(tidegate_store_round_trip_seconds_bucket{{{_STORE}}}[{_R}]))", "{{le}}"
                        ),
                    ),
                    "heatmap",
                ),
                Panel(
                    "Round trips lost",
                    "By reason. Each is answered from the policy's failure mode.",
                    "cps",
                    (
                        Query(
                            f"sum by (node, reason) (rate(tidegate_store_lost_round_trips_total{{{_STORE}}}[{_R}]))",
                            "{{node}} {{reason}}",
                        ),
                    ),
                ),
                Panel(
                    "Servers that may be asked",
                    "0: the breaker is open, so requests cost nothing and failure modes decide.",
                    "short",
                    (Query(f"min by (node) (tidegate_store_node_up{{{_STORE}}})", "{{node}}"),),
                    most=1,
                ),
                Panel(
                    "Time in failure modes",
                    "Seconds a second in which failure modes decided at least some requests.",
                    "percentunit",
                    (
                        Query(
                            f"sum by (instance) (rate(tidegate_store_degraded_seconds_total{{{_STORE}}}[{_R}]))",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Connections",
                    "Connections to each server, of all replicas.",
                    "short",
                    (Query(f"sum by (node) (tidegate_store_connections{{{_STORE}}})", "{{node}}"),),
                ),
                Panel(
                    "Memory of the store was lost",
                    "Failovers, restarts and flushes that replicas noticed.",
                    "short",
                    (Query(f"sum(increase(tidegate_store_new_masters_total{{{_STORE}}}[{_R}]))", "new masters"),),
                ),
            ),
        ),
        Row(
            "Counters in memory",
            (
                Panel(
                    "Keys",
                    "Live counters, and the bound.",
                    "short",
                    (
                        Query(f"sum by (instance) (tidegate_store_keys{{{_STORE}}})", "{{instance}}"),
                        Query(f"max(tidegate_store_max_keys{{{_STORE}}})", "bound"),
                    ),
                ),
                Panel(
                    "Refused or uncounted for want of room",
                    "Charges that the full store denied, or let through where the policy says Open.",
                    "cps",
                    (
                        Query(f"sum(rate(tidegate_store_refused_total{{{_STORE}}}[{_R}]))", "refused"),
                        Query(f"sum(rate(tidegate_store_uncounted_total{{{_STORE}}}[{_R}]))", "uncounted"),
                    ),
                ),
            ),
        ),
    ),
)
"""The board."""
