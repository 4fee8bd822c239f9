"""The kill switch of a release: in force with its snapshot, and out of it with the next."""

from __future__ import annotations

import msgspec
import pytest

from ratelimit_service.limiter.settings import LimiterSettings
from support.limiters import LimiterHarness, request
from support.snapshots import policy, snapshot_of

RULES = "- {name: r, match: [{key: user, type: Any}], limits: [{requests: 1, window: 1h}]}"
SNAPSHOT = snapshot_of(policy(RULES))
ANN = request("user=ann")


@pytest.mark.parametrize("deferred", [False, True])
def test_nothing_is_rejected_while_it_is_thrown(deferred: bool) -> None:
    """Counting goes on, so that rejecting begins again where it would have been."""
    harness = LimiterHarness(SNAPSHOT, deferred=deferred)
    assert [harness.ask(ANN).over for _ in range(2)] == [False, True]
    harness.limiter.apply(msgspec.structs.replace(SNAPSHOT, shadow=True))
    assert harness.limiter.is_shadow
    assert [harness.ask(ANN).over for _ in range(2)] == [False, False]
    assert harness.counters("r")["shadow_over"] == 2
    harness.limiter.apply(SNAPSHOT)

    assert harness.ask(ANN).over
    assert not harness.limiter.is_shadow


def test_a_process_in_shadow_mode_stays_in_it() -> None:
    """The flag is the stronger word."""
    harness = LimiterHarness(SNAPSHOT, LimiterSettings(shadow_mode=True))
    harness.limiter.apply(msgspec.structs.replace(SNAPSHOT, shadow=True))
    harness.limiter.apply(SNAPSHOT)

    assert [harness.ask(ANN).over for _ in range(2)] == [False, False]
