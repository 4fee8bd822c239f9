"""What the limiter knows of rules is forgotten at once and freed little by little."""

from __future__ import annotations

from support.limiters import LimiterHarness, request
from support.snapshots import policy, snapshot_of

RULES = "\n".join(
    f"- {{name: r{number}, match: [{{key: k{number}, value: v}}], limits: [{{requests: 9, window: 1h}}]}}"
    for number in range(40)
)


def test_rules_that_are_met_again_free_what_was_known() -> None:
    """However often snapshots change, what waits to be freed is bounded by what was met."""
    snapshot = snapshot_of(policy(RULES))
    harness = LimiterHarness(snapshot)
    recipes = harness.limiter._recipes
    for _ in range(3):
        for number in range(40):
            harness.ask(request(f"k{number}=v"))
        harness.limiter.apply(snapshot)
    assert sum(map(len, recipes._graves)) <= 40
    for number in range(40):
        harness.ask(request(f"k{number}=v"))

    assert recipes._graves == []
