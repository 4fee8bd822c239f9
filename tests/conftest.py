"""Rules for every test: bounded randomness, and in CI nothing is skipped."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from support.ci_rules import pytest_collection_modifyitems, pytest_sessionfinish, pytest_terminal_summary

__all__ = ["pytest_collection_modifyitems", "pytest_sessionfinish", "pytest_terminal_summary"]

# `default` keeps `make test` short; `soak` is for `make soak` and for hunting.
settings.register_profile("default", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
# `ci` draws the same examples each time, so that a change is judged by what it changes; `default` goes on searching.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("soak", settings.get_profile("default"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A service that a test builds sets the process's logging up; the next test begins without that."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    # Only what the service added: pytest's own handlers are subclasses.
    root.handlers[:] = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
    structlog.reset_defaults()
