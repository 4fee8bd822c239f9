"""Is the rate limiter well, and is it within its objectives?"""

from __future__ import annotations

from typing import Final

from tools.dashboards.panels import SELECT, Board, Panel, Query, Row

_S: Final = SELECT
_R: Final = "$__rate_interval"

BOARD: Final = Board(
    uid="tidegate-overview",
    title="Tidegate / Overview",
    description="Is the rate limiter well, and is it within its objectives? For whoever is on call.",
    probe="tidegate_build_info",
    rows=(
        Row(
            "Objectives",
            (
                Panel(
                    "Error budget left, 30 days",
                    "Share of the budget of 0.05 % that is left. An error is a call without a verdict or a decision of a "
                    "failure mode; a rejection is not an error.",
                    "percentunit",
                    (
                        Query(
                            f"1 - ((sum(increase(tidegate_request_errors_total{{{_S}}}[30d])) or vector(0)) + "
                            f'(sum(increase(tidegate_decision_sources_total{{{_S}, source="fallback"}}[30d])) or vector(0)))'
                            f" / (0.0005 * sum(increase(tidegate_request_duration_seconds_count{{{_S}}}[30d])))",
                            "left",
                        ),
                    ),
                    "stat",
                    6,
                ),
                Panel(
                    "Calls answered within 5 ms",
                    "The objective is 99 %. Envoy waits 20 ms unless told otherwise.",
                    "percentunit",
                    (
                        Query(
                            f'sum(rate(tidegate_request_duration_seconds_bucket{{{_S}, le="0.005"}}[{_R}])) / '
                            f"sum(rate(tidegate_request_duration_seconds_count{{{_S}}}[{_R}]))",
                            "within 5 ms",
                        ),
                    ),
                    "stat",
                    6,
                ),
                Panel(
                    "Replicas ready",
                    "Replicas whose /readyz answers 200, of all that are scraped.",
                    "short",
                    (
                        Query(f"sum(tidegate_ready{{{_S}}})", "ready"),
                        Query(f"count(tidegate_ready{{{_S}}})", "all"),
                    ),
                    "stat",
                    6,
                ),
                Panel(
                    "Configurations in force",
                    "1 when every replica runs the same version; more for long means that one does not get its policies.",
                    "short",
                    (Query(f"count(count by (version) (tidegate_config_info{{{_S}}}))", "versions"),),
                    "stat",
                    6,
                ),
            ),
        ),
        Row(
            "Traffic",
            (
                Panel(
                    "Decisions",
                    "Descriptors decided, by result. `over` was rejected, `shadow_over` would have been.",
                    "cps",
                    (Query(f"sum by (result) (rate(tidegate_decisions_total{{{_S}}}[{_R}]))", "{{result}}"),),
                ),
                Panel(
                    "Time to a verdict",
                    "From the last byte of a call read to its answer handed to the socket.",
                    "s",
                    tuple(
                        Query(
                            f"histogram_quantile({quantile}, sum by (le) "
                            f"(rate(tidegate_request_duration_seconds_bucket{{{_S}}}[{_R}])))",
                            f"p{round(quantile * 100)}",
                        )
                        for quantile in (0.5, 0.95, 0.99)
                    ),
                ),
                Panel(
                    "Rules that reject most",
                    "The ten rules with the most rejections a second, now.",
                    "cps",
                    (
                        Query(
                            f'topk(10, sum by (domain, rule) (rate(tidegate_decisions_total{{{_S}, result="over"}}[{_R}])))',
                            "{{domain}} {{rule}}",
                        ),
                    ),
                ),
                Panel(
                    "Calls without a verdict",
                    "By gRPC code. INVALID_ARGUMENT: Envoy's configuration sends what no policy can read.",
                    "cps",
                    (Query(f"sum by (code) (rate(tidegate_request_errors_total{{{_S}}}[{_R}]))", "{{code}}"),),
                ),
            ),
        ),
        Row(
            "Signs of trouble",
            (
                Panel(
                    "Nobody's traffic",
                    "Calls for domains that no policy names, and descriptors that reach no rule: often a typing error in Envoy.",
                    "cps",
                    (
                        Query(f"sum(rate(tidegate_unknown_domain_total{{{_S}}}[{_R}]))", "unknown domain"),
                        Query(f"sum(rate(tidegate_unmatched_descriptors_total{{{_S}}}[{_R}]))", "no rule"),
                    ),
                ),
                Panel(
                    "Decisions by failure mode",
                    "Share of charges that a failure mode decided, because the store did not answer in time.",
                    "percentunit",
                    (
                        Query(
                            f'sum(rate(tidegate_decision_sources_total{{{_S}, source="fallback"}}[{_R}])) / '
                            f"sum(rate(tidegate_decision_sources_total{{{_S}}}[{_R}]))",
                            "fallback",
                        ),
                    ),
                ),
                Panel(
                    "Memory of the service",
                    "Resident memory of each replica.",
                    "bytes",
                    (Query(f"process_resident_memory_bytes{{{_S}}}", "{{instance}}"),),
                ),
                Panel(
                    "CPU of the service",
                    "Cores that each replica keeps busy; one is all that a worker can use.",
                    "short",
                    (Query(f"rate(process_cpu_seconds_total{{{_S}}}[{_R}])", "{{instance}}"),),
                ),
            ),
        ),
    ),
)
"""The board."""
