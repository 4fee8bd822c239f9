"""What several tests of whole services begin with."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from support.redis_servers import RedisServer, running_server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A real server."""
    with running_server() as server:
        yield server


@pytest.fixture
def signals_given_back() -> Iterator[None]:
    """A service in this process takes over its signals; give them back."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
