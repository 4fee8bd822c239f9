"""Every alert of the chart fires by a real fault of a real installation, and none without."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from e2e.alerts.faults import FAULTS, Fault
from e2e.alerts.quickened import names
from e2e.alerts.world import World, world
from e2e.support.processes import eventually
from e2e.support.prometheus import RULES, skip_without_parts

ALERTS = names(RULES.read_text(encoding="utf-8"))
QUIET_S = 3.0
"""So long must an alert have been silent before its fault."""
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    skip_without_parts()
    with world(tmp_path_factory.mktemp("alerts")) as running:
        yield running


def test_every_alert_has_a_fault() -> None:
    """A new alert needs one."""
    assert sorted(alert for fault in FAULTS for alert in fault.alerts) == sorted(ALERTS)


def test_nothing_fires_while_nothing_is_wrong(installation: World) -> None:
    """Under load, for longer than the quickened alerts look back. What starting did has passed by then."""
    silent_since = [time.monotonic()]

    def silent_for_long() -> bool:
        if any(installation.firing(alert, 1) for alert in ALERTS):
            silent_since[0] = time.monotonic()
        return time.monotonic() - silent_since[0] > 2 * QUIET_S

    eventually("silence", silent_for_long, PATIENCE_S, explain=lambda: _firing(installation))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_alert_fires_by_its_fault(installation: World, fault: Fault) -> None:
    """Silent before, firing while the fault lasts."""
    for alert in fault.alerts:
        eventually(f"silence of {alert}", lambda alert=alert: not installation.firing(alert, QUIET_S), PATIENCE_S)  # type: ignore[misc]

    began = time.monotonic()
    with fault.inject(installation):
        for alert in fault.alerts:
            eventually(
                alert,
                lambda alert=alert: installation.firing(alert, time.monotonic() - began),  # type: ignore[misc]
                PATIENCE_S,
                explain=lambda: _firing(installation),
            )


def _firing(installation: World) -> str:
    return "; ".join(str(each["metric"]) for each in installation.prometheus.query('ALERTS{alertstate="firing"}'))
