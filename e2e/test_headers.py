"""The headers that Envoy makes of the service's statuses (`enable_x_ratelimit_headers: DRAFT_VERSION_03`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from e2e.support.caller import Answer, get
from e2e.support.envoy import Envoy, Filter, actions, bootstrap, envoy, header, route
from e2e.support.policies import any_of, policy, rule
from e2e.support.service import Service, service
from ratelimit_service.transport.client import ask as ask_service
from ratelimit_service.wire.rls.messages import Descriptor, Request, Status

DOMAIN = "e2e.headers"
WINDOW_S = 3600

POLICIES = [
    policy(DOMAIN, rule("per-user", any_of("user"), 3), rule("per-plan", any_of("plan"), 100)),
    policy(f"{DOMAIN}.draft", rule("per-user", any_of("user"), 3), responseHeaders="RateLimitFields"),
]


@pytest.fixture(scope="module")
def limited(
    tmp_path_factory: pytest.TempPathFactory, transport: str, upstream_port: int
) -> Iterator[tuple[Envoy, Service]]:
    """An Envoy that adds x-ratelimit headers, and the service that it asks."""
    folder = tmp_path_factory.mktemp("headers")
    with service(folder, POLICIES, transport) as asked:
        config = bootstrap(
            service_port=asked.grpc_port,
            upstream_port=upstream_port,
            filter_=Filter(DOMAIN, deny=True, timeout="5s"),
            routes=[route("/")],
            vhost_limits=[actions(header("x-user", "user")), actions(header("x-plan", "plan"))],
        )
        with envoy(folder, config) as asking:
            yield asking, asked


def ask(asked: Service, **entries: str) -> list[Status]:
    """What the service itself says now of one descriptor per entry, at no cost."""
    descriptors = tuple(Descriptor(entries=((key.encode(), value.encode()),), hits=0) for key, value in entries.items())
    question = ask_service(asked.grpc, Request(DOMAIN.encode(), descriptors), timeout_s=5)
    return list(asyncio.run(question).statuses)


def numbers(answer: Answer) -> tuple[int, int]:
    """Remaining and reset of an answer."""
    return int(answer.headers["x-ratelimit-remaining"]), int(answer.headers["x-ratelimit-reset"])


def test_remaining_counts_down_to_zero_and_stays_there(limited: tuple[Envoy, Service]) -> None:
    """Of a limit of 3: 2, 1, 0, and 0 when denied."""
    answers = [get(limited[0].address, headers={"x-user": "ann"}) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [numbers(answer)[0] for answer in answers] == [2, 1, 0, 0]


def test_headers_say_what_the_status_says(limited: tuple[Envoy, Service]) -> None:
    """After each request the service itself is asked: limit, remaining and reset are the same."""
    asking, asked = limited
    answers, said = [], []
    for _ in range(3):
        answers.append(get(asking.address, headers={"x-user": "bob"}))
        said.extend(ask(asked, user="bob"))

    limits = [status.limit for status in said]
    assert [limit.requests for limit in limits if limit] == [3, 3, 3]
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == [
        f'{limit.requests}, {limit.requests};w={WINDOW_S};name="{limit.name}"' for limit in limits if limit
    ]
    assert [numbers(answer)[0] for answer in answers] == [status.remaining for status in said]
    assert [numbers(answer)[1] for answer in answers] == pytest.approx([status.reset_s for status in said], abs=2)


def test_reset_of_a_denied_request_is_within_the_window(limited: tuple[Envoy, Service]) -> None:
    """It says when the next request fits: at least a second, at most the window and a sub-bucket of it."""
    answers = [get(limited[0].address, headers={"x-user": "eve"}) for _ in range(4)]

    assert answers[3].status == 429
    assert 1 <= numbers(answers[3])[1] <= WINDOW_S + WINDOW_S // 60 + 1


def test_of_two_descriptors_the_tighter_one_is_shown(limited: tuple[Envoy, Service]) -> None:
    """Envoy shows the status with the least remaining, and lists both limits."""
    answer = get(limited[0].address, headers={"x-user": "kim", "x-plan": "gold"})

    assert numbers(answer)[0] == 2
    assert answer.headers["x-ratelimit-limit"].startswith("3, ")


def test_an_unlimited_request_carries_no_headers(limited: tuple[Envoy, Service]) -> None:
    """Without a descriptor Envoy asks nothing, so there is nothing to show."""
    answer = get(limited[0].address)

    assert [name for name in answer.headers if name.startswith("x-ratelimit")] == []
