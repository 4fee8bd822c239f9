"""Every schedule of standing allowances, and each of their rules planted as a bug (DECISIONS 14)."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_service.algorithms.limit import Algorithm
from support.rolling_standing_model import RollingModel, RollingRules
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
        ("only_form_in_force_owns", Events(new_forms=1)),
        ("takes_leave_reserve", Events()),
        ("reserves_most_in_doubt", Events(new_forms=1, forms=(0, 2))),
        ("shareless_doubt", Events(new_forms=1, forms=(0, 2))),
    ],
)
def test_rule_that_is_dropped_is_missed(dropped: str, events: Events) -> None:
    """Each rule is there for a schedule that needs it."""
    without: dict[str, Any] = {dropped: False}

    assert StandingModel(KEPT._replace(**without), events).explored().breach


def test_reserve_that_the_store_keeps_is_a_second_guard() -> None:
    """Since takes in doubt leave the most that any form may own, forgetting it alone is no bug; the rest is."""
    assert not StandingModel(KEPT._replace(keeps_reserve=False), NEW_FORM).explored().breach


rolling = pytest.mark.parametrize("algorithm", [Algorithm.SLIDING_WINDOW, Algorithm.TOKEN_BUCKET])


@rolling
def test_no_interval_has_more_than_its_limit(algorithm: Algorithm) -> None:
    """Whoever holds the slot, and whatever is evicted or loaded anew."""
    found = RollingModel(algorithm).explored()

    assert not found.breach, found.schedule
    assert found.states > 1_000


@rolling
@pytest.mark.parametrize("dropped", RollingRules._fields)
def test_rule_of_rolling_limits_that_is_dropped_is_missed(algorithm: Algorithm, dropped: str) -> None:
    """Each rule is there for a schedule that needs it."""
    without: dict[str, Any] = {dropped: False}

    assert RollingModel(algorithm, RollingRules(**without)).explored().breach
