"""Every query of every dashboard, and every recording rule, returns data from real processes under load."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from e2e.dashboards.stage import filled_in, stage
from e2e.support.prometheus import RULES, Prometheus, skip_without_parts
from tools.dashboards.boards import BOARDS

_MAY_BE_EMPTY = {
    # What a run without these faults has none of.
    ("tidegate-backend", "Memory of the store was lost"): "no failover happens here",
}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    skip_without_parts()
    with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


def test_every_query_of_every_board_returns_data(prometheus: Prometheus) -> None:
    """A panel that stays empty in front of a real installation is a bug."""
    empty = []
    for board in BOARDS:
        for row in board.rows:
            for panel in row.panels:
                for query in panel.queries:
                    found = prometheus.series(filled_in(query.expr), 30)
                    if not found and (board.uid, panel.title) not in _MAY_BE_EMPTY:
                        empty.append(f"{board.title} / {panel.title}: {query.expr}")

    assert empty == []


def test_every_recording_rule_returns_data(prometheus: Prometheus) -> None:
    """Those over hours need hours; they are tested by promtool."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    names = [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]

    assert [name for name in names if not prometheus.query(name)] == []


def test_the_fault_of_the_stage_is_seen(prometheus: Prometheus) -> None:
    """Redis stood still for two seconds: failure modes decided, and the boards say so."""
    assert prometheus.series('sum(increase(tidegate_decision_sources_total{source="fallback"}[20s])) > 0', 30)
