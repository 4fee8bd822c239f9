"""What users see: verdicts as Envoy counts them."""

from __future__ import annotations

from typing import Final

from tools.dashboards.panels import SELECT, Board, Panel, Query, Row

_S: Final = SELECT
_R: Final = "$__rate_interval"

_ASKING: Final = f'{_S}, envoy_cluster_name=~"$cluster"'


def _total(name: str) -> str:
    """A second's worth of one of Envoy's counters, which does not exist before its first event."""
    return f"(sum(rate(envoy_cluster_ratelimit_{name}{{{_ASKING}}}[{_R}])) or vector(0))"


BOARD: Final = Board(
    uid="tidegate-envoy",
    title="Tidegate / Envoy's view",
    description="What do users see? The truth is in Envoy: a service that is well may still not be asked in time.",
    probe="envoy_server_live",
    variables=(("cluster", f"label_values(envoy_cluster_ratelimit_ok{{{_S}}}, envoy_cluster_name)", "Upstream"),),
    rows=(
        Row(
            "What Envoy did",
            (
                Panel(
                    "Verdicts that Envoy got",
                    "By upstream. `error`: no answer in time; `failure_mode_allowed`: let through without a verdict.",
                    "reqps",
                    tuple(
                        Query(f"{_total(name)}", name) for name in ("ok", "over_limit", "error", "failure_mode_allowed")
                    ),
                ),
                Panel(
                    "Share let through without a verdict",
                    "Should be 0. A tight timeout makes this grow in silence.",
                    "percentunit",
                    (
                        Query(
                            f"{_total('failure_mode_allowed')} / "
                            f"({_total('ok')} + {_total('over_limit')} + {_total('error')} > 0)",
                            "let through",
                        ),
                    ),
                ),
                Panel(
                    "Added latency",
                    "Time that Envoy waits for a verdict, the network included.",
                    "ms",
                    tuple(
                        Query(
                            f"histogram_quantile({quantile}, sum by (le) (rate("
                            f'envoy_cluster_upstream_rq_time_bucket{{{_S}, envoy_cluster_name=~".*(tidegate|ratelimit).*"}}[{_R}])))',
                            f"p{round(quantile * 100)}",
                        )
                        for quantile in (0.5, 0.95, 0.99)
                    ),
                ),
                Panel(
                    "Connections to the service",
                    "From each Envoy to its rate-limit cluster.",
                    "short",
                    (
                        Query(
                            f'sum by (instance) (envoy_cluster_upstream_cx_active{{{_S}, envoy_cluster_name=~".*(tidegate|ratelimit).*"}})',
                            "{{instance}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
"""The board."""
