"""What Envoy does while the service is down or hangs, and that it comes back by itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.support.caller import get, statuses
from e2e.support.envoy import Envoy, Filter, actions, bootstrap, envoy, header, route
from e2e.support.policies import any_of, policy, rule
from e2e.support.processes import eventually
from e2e.support.service import Service, service

DOMAIN = "e2e.failure"
POLICIES = [policy(DOMAIN, rule("per-user", any_of("user"), 2))]
ERROR = 500
"""What Envoy answers with failure_mode_deny, unless status_on_error says otherwise."""


@pytest.fixture(params=[False, True], ids=["allow", "deny"])
def deny(request: pytest.FixtureRequest) -> bool:
    """failure_mode_deny off and on."""
    return bool(request.param)


@pytest.fixture
def limited(tmp_path: Path, transport: str, upstream_port: int, deny: bool) -> Iterator[tuple[Envoy, Service]]:
    """An Envoy with its default timeout of 20 ms, and a service that the test may stop."""
    with service(tmp_path, POLICIES, transport) as asked:
        config = bootstrap(
            service_port=asked.grpc_port,
            upstream_port=upstream_port,
            filter_=Filter(DOMAIN, deny=deny),
            routes=[route("/")],
            vhost_limits=[actions(header("x-user", "user"))],
        )
        with envoy(tmp_path, config) as asking:
            warm_up(asking)
            yield asking, asked


def warm_up(asking: Envoy) -> None:
    """Wait until a call makes it in Envoy's 20 ms: the first one connects."""
    eventually("an answered call", lambda: get(asking.address, headers={"x-user": "warm"}).status == 429)


def test_a_service_that_is_down_means_what_the_filter_says(limited: tuple[Envoy, Service], deny: bool) -> None:
    """Connections are refused: every request passes, or every request is answered 500."""
    asking, asked = limited
    asked.process.send(signal.SIGKILL)
    asked.process.wait()

    expected = [ERROR if deny else 200] * 5
    assert statuses(asking.address, 5, headers={"x-user": "ann"}) == expected
    assert asking.stat("ratelimit.failure_mode_allowed") == (0 if deny else 5)


def test_a_service_that_hangs_costs_the_timeout_and_recovers(limited: tuple[Envoy, Service], deny: bool) -> None:
    """A stopped process answers nothing: each request waits 20 ms. When it goes on, limits hold again."""
    asking, asked = limited
    asked.process.send(signal.SIGSTOP)
    began = time.monotonic()
    hung = statuses(asking.address, 5, headers={"x-user": "bob"})
    waited_s = time.monotonic() - began
    asked.process.send(signal.SIGCONT)

    assert hung == [ERROR if deny else 200] * 5
    assert 5 * 0.02 <= waited_s < 5
    eventually("a limited call", lambda: get(asking.address, headers={"x-user": "cleo"}).status == 429)
