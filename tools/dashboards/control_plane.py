"""Whether policies reach every replica."""

from __future__ import annotations

from typing import Final

from tools.dashboards.panels import SELECT, Board, Panel, Query, Row

_S: Final = SELECT
_R: Final = "$__rate_interval"

BOARD: Final = Board(
    uid="tidegate-control-plane",
    title="Tidegate / Control plane",
    description="Do policies reach every replica, and is the operator well? For who runs the platform.",
    probe="tidegate_operator_leader",
    rows=(
        Row(
            "Policies",
            (
                Panel(
                    "Policies by condition",
                    "Programmed=False for long: a replica refuses the policy, or cannot be reached.",
                    "short",
                    (
                        Query(
                            f"max by (condition, status) (tidegate_operator_policies{{{_S}}})",
                            "{{condition}}={{status}}",
                        ),
                    ),
                ),
                Panel(
                    "Applied to live everywhere",
                    "From publishing the newest set until every replica ran it.",
                    "s",
                    (Query(f"max(tidegate_operator_propagation_seconds{{{_S}}})", "seconds"),),
                ),
                Panel(
                    "Replicas and streams",
                    "Streams fewer than replicas: some replica does not get its policies.",
                    "short",
                    (
                        Query(f"max(tidegate_operator_replicas{{{_S}}})", "replicas"),
                        Query(f"sum(tidegate_operator_xds_clients{{{_S}}})", "streams"),
                    ),
                ),
                Panel(
                    "Answers of replicas",
                    "nack: a replica refuses what it was given; its last good form stays live.",
                    "cps",
                    (
                        Query(
                            f"sum by (result) (rate(tidegate_operator_xds_responses_total{{{_S}}}[{_R}]))", "{{result}}"
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Operator",
            (
                Panel(
                    "Holder of the Lease",
                    "Exactly one: it alone serves replicas and writes status.",
                    "short",
                    (
                        Query(f"tidegate_operator_leader{{{_S}}}", "{{instance}}"),
                        Query(f"sum(tidegate_operator_leader{{{_S}}})", "all"),
                    ),
                ),
                Panel(
                    "Age of what is known",
                    "Seconds since the last complete list, by kind. It comes every 60 s.",
                    "s",
                    (Query(f"max by (kind) (tidegate_operator_list_age_seconds{{{_S}}})", "{{kind}}"),),
                ),
                Panel(
                    "Writes of status",
                    "By result. Idle: none.",
                    "cps",
                    (
                        Query(
                            f"sum by (result) (rate(tidegate_operator_status_writes_total{{{_S}}}[{_R}]))", "{{result}}"
                        ),
                    ),
                ),
                Panel(
                    "Requests to the API server",
                    "By verb and class of answer.",
                    "reqps",
                    (
                        Query(
                            f"sum by (verb, code) (rate(tidegate_operator_api_requests_total{{{_S}}}[{_R}]))",
                            "{{verb}} {{code}}",
                        ),
                    ),
                ),
                Panel(
                    "Held or quarantined",
                    "Sets that are held back, and resources that replicas refuse.",
                    "short",
                    (
                        Query(f"max(tidegate_operator_xds_held{{{_S}}})", "held"),
                        Query(f"max(tidegate_operator_quarantined{{{_S}}})", "quarantined"),
                        Query(f"max(tidegate_operator_enforcement_shadow{{{_S}}})", "kill switch: Shadow"),
                    ),
                ),
                Panel(
                    "Memory of the operator",
                    "The most so far, of each.",
                    "bytes",
                    (Query(f"tidegate_operator_resident_memory_bytes{{{_S}}}", "{{instance}}"),),
                ),
            ),
        ),
    ),
)
"""The board."""
