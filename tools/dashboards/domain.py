"""What limits do to traffic, by domain and rule."""

from __future__ import annotations

from typing import Final

from tools.dashboards.panels import SELECT, Board, Panel, Query, Row

_S: Final = SELECT
_R: Final = "$__rate_interval"

_RULE: Final = f'{_S}, domain=~"$domain", rule=~"$rule"'
BOARD: Final = Board(
    uid="tidegate-domain",
    title="Tidegate / Domain and rule",
    description="What do my limits do to my traffic? For who owns a policy.",
    probe="tidegate_build_info",
    variables=(
        ("domain", f"label_values(tidegate_decisions_total{{{_S}}}, domain)", "Domain"),
        ("rule", f'label_values(tidegate_decisions_total{{{_S}, domain=~"$domain"}}, rule)', "Rule"),
    ),
    rows=(
        Row(
            "Verdicts",
            (
                Panel(
                    "Decisions by result",
                    "Descriptors decided by the chosen rules. `allow` and `deny` are rules without a limit.",
                    "cps",
                    (Query(f"sum by (result) (rate(tidegate_decisions_total{{{_RULE}}}[{_R}]))", "{{result}}"),),
                ),
                Panel(
                    "Share rejected, by rule",
                    "A limit that rejects more than a fifth for long is too low, or somebody runs wild.",
                    "percentunit",
                    (
                        Query(
                            f'sum by (domain, rule) (rate(tidegate_decisions_total{{{_RULE}, result="over"}}[{_R}])) / '
                            f"sum by (domain, rule) (rate(tidegate_decisions_total{{{_RULE}}}[{_R}]))",
                            "{{domain}} {{rule}}",
                        ),
                    ),
                ),
                Panel(
                    "Shadow: would be rejected",
                    "What rules in Shadow, and rollouts that are not at 100 %, would reject if they were enforced.",
                    "cps",
                    (
                        Query(
                            f'sum by (domain, rule) (rate(tidegate_decisions_total{{{_RULE}, result="shadow_over"}}[{_R}]))',
                            "{{domain}} {{rule}}",
                        ),
                    ),
                ),
                Panel(
                    "Hits asked for, and near the limit",
                    "Hits are what requests weigh. Near: beyond the near-limit ratio (0.8 unless told otherwise).",
                    "cps",
                    (
                        Query(f"sum(rate(tidegate_hits_total{{{_RULE}}}[{_R}]))", "asked for"),
                        Query(f"sum(rate(tidegate_near_limit_hits_total{{{_RULE}}}[{_R}]))", "near the limit"),
                    ),
                ),
                Panel(
                    "Bound on what may pass beyond the limit",
                    "Hits that the chosen rules may admit beyond their limits in one window, as things stand: 0 is exact.",
                    "short",
                    (Query(f"max by (domain, rule) (tidegate_admission_bound{{{_RULE}}})", "{{domain}} {{rule}}"),),
                ),
                Panel(
                    "Busiest rules",
                    "The ten rules with the most decisions a second, now.",
                    "cps",
                    (
                        Query(
                            f"topk(10, sum by (domain, rule) (rate(tidegate_decisions_total{{{_RULE}}}[{_R}])))",
                            "{{domain}} {{rule}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
"""The board."""
