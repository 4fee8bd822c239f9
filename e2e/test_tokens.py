"""A token budget that is charged when the answer is done (`apply_on_stream_done`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.support.caller import get
from e2e.support.envoy import Envoy, Filter, actions, bootstrap, envoy, header, header_to_metadata, per_route
from e2e.support.policies import any_of, policy, rule
from e2e.support.processes import eventually
from e2e.support.service import Service, service

DOMAIN = "e2e.tokens"
BUDGET = 100
POLICIES = [policy(DOMAIN, rule("tokens", any_of("user"), BUDGET, countDenied=True))]
USER = header("x-user", "user")


@pytest.fixture
def limited(tmp_path: Path, transport: str, upstream_port: int) -> Iterator[tuple[Envoy, Service]]:
    """Each request first checks with 0 hits, and is charged what the answer's x-tokens-used says."""
    with service(tmp_path, POLICIES, transport) as asked:
        config = bootstrap(
            service_port=asked.grpc_port,
            upstream_port=upstream_port,
            filter_=Filter(DOMAIN, deny=True, timeout="5s"),
            routes=[
                per_route(
                    "/",
                    actions(USER, hits_addend={"number": 0}),
                    actions(
                        USER,
                        hits_addend={"format": "%DYNAMIC_METADATA(e2e.tokens:used)%"},
                        apply_on_stream_done=True,
                    ),
                )
            ],
            filters=[header_to_metadata("x-tokens-used", "e2e.tokens", "used", response=True, number=True)],
        )
        with envoy(tmp_path, config) as asking:
            yield asking, asked


def spend(limited: tuple[Envoy, Service], user: str, cost: int, charged_before: int) -> int:
    """One request that costs so much; waits until the charge, which Envoy sends and forgets, has arrived."""
    asking, asked = limited
    status = get(asking.address, headers={"x-user": user, "x-cost": str(cost)}).status
    wanted = charged_before + (cost if status == 200 else 0)
    eventually("the charge", lambda: asked.metric("tidegate_hits_total", 'rule="tokens"') >= wanted)
    return status


def test_a_budget_runs_out_by_what_answers_cost(limited: tuple[Envoy, Service]) -> None:
    """40 tokens an answer, a budget of 100: three answers pass, the third overdraws it, the fourth is denied."""
    seen = [spend(limited, "ann", 40, 40 * number) for number in range(3)]
    fourth = get(limited[0].address, headers={"x-user": "ann", "x-cost": "1"}).status

    assert seen == [200, 200, 200]
    assert fourth == 429


def test_an_answer_over_the_whole_budget_is_charged_all_the_same(limited: tuple[Envoy, Service]) -> None:
    """What is spent is spent: one answer of 1,000 tokens leaves nothing for the next request."""
    first = spend(limited, "bob", 10 * BUDGET, 0)
    second = get(limited[0].address, headers={"x-user": "bob", "x-cost": "1"}).status

    assert (first, second) == (200, 429)


def test_one_user_does_not_spend_the_tokens_of_another(limited: tuple[Envoy, Service]) -> None:
    """Budgets are per user."""
    spend(limited, "eve", 10 * BUDGET, 0)

    assert get(limited[0].address, headers={"x-user": "kim"}).status == 200
