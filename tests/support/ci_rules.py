"""What holds in CI for every suite: nothing is skipped, and what asks real parts has a second try.

A `conftest.py` takes the hooks by importing them.
"""

from __future__ import annotations

import os

import pytest

# Over real sockets and processes, one test of thousands may meet a deadline of the other side on a busy machine.
_OVER_REAL_PARTS = frozenset({"integration", "contract", "chaos", "e2e"})

_SAYS_NOTHING = "Flaky|module inside strategies"
"""Hypothesis' own word that something outside, such as a thread that drew a random number, disturbed the drawing."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In CI a test over real parts is tried twice; each first failure is shown.

    Laws and units have one try, unless Hypothesis says that their examples were disturbed from outside.
    """
    if not os.environ.get("CI"):
        return
    for item in items:
        if _OVER_REAL_PARTS.intersection(item.path.relative_to(config.rootpath).parts):
            item.add_marker(pytest.mark.flaky(reruns=1))
        else:
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=[_SAYS_NOTHING]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what failed at its first try, and say that a skip is a failure."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.write_line(f"tried twice: {report.nodeid}\n{report.longreprtext}", yellow=True)
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("CI"):
        text = f"{len(skipped)} skipped: in CI every part is installed, so a skip is a failure"
        terminalreporter.write_line(text, red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of CI in which a test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
