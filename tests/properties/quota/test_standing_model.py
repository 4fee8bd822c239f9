"""Every schedule of standing allowances, and each of their rules planted as a bug (DECISIONS 14)."""

from __future__ import annotations

from typing import Any

import pytest

from support.standing_model import Events, StandingModel, StandingRules

KEPT = StandingRules()
CLOCKS_OFF = Events(errors=(1, -1))
NEW_FORM = Events(new_forms=1, ticks=9)


@pytest.mark.parametrize(
    "events",
    [
        CLOCKS_OFF,
        Events(restarts=1, ticks=7),
        Events(evictions=1, reloads=1, ticks=7),
        NEW_FORM,
        NEW_FORM._replace(forms=(0, 2)),
        NEW_FORM._replace(forms=(2, 1)),
    ],
    ids=["clocks off", "restart", "eviction and reload", "more owned", "owned from now on", "less owned"],
)
def test_no_window_has_more_than_its_limit(events: Events) -> None:
    """Whatever slots, replicas and their clocks do."""
    found = StandingModel(KEPT, events).explored()

    assert not found.breach, found.schedule
    assert found.states > 1_000


@pytest.mark.parametrize(
    ("dropped", "events"),
    [
        ("guards_edges", CLOCKS_OFF),
        ("holder_waits", Events(restarts=1)),
        ("eviction_taints", Events(evictions=1)),
        ("counts_outlive_reloads", Events(reloads=1)),
        ("form_waits", Events(new_forms=1)),
        ("reserves_most_in_doubt", Events(new_forms=1, forms=(0, 2))),
        ("shareless_doubt", Events(new_forms=1, forms=(0, 2))),
    ],
)
def test_rule_that_is_dropped_is_missed(dropped: str, events: Events) -> None:
    """Each rule is there for a schedule that needs it."""
    without: dict[str, Any] = {dropped: False}

    assert StandingModel(KEPT._replace(**without), events).explored().breach
