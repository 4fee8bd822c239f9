"""Going back to a kept set, and forward again: what is asked for by the settings, and what is given out for it."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from ratelimit_operator.cluster.api_server import ApiFailure
from ratelimit_operator.cluster.history import History
from ratelimit_operator.plan.distribution import Distribution, ResourceId
from ratelimit_operator.plan.history import gone_back, withheld


class Rollback:
    """The set that is given out in place of what is planned.

    Args:
        history: Where kept sets are.

    Attributes:
        version: Of the set that is gone back to, empty: none is.
        problem: Why what was asked for is not done, empty: it is.
        given: What is given out now, None: nothing yet.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._kept: Distribution | None = None
        self._log = structlog.get_logger("tidegate.rollback")
        self._withheld: Mapping[ResourceId, str] = {}
        self.version = ""
        self.problem = ""
        self.given: Distribution | None = None

    async def look(self, asked: str) -> None:
        """Read the set that is asked for; empty: none. One that cannot be read leaves everything as it is."""
        if asked == self.version and not self.problem:
            return
        if not asked:
            self.version, self.problem, self._kept = "", "", None
            self._log.info("rollback ended")
            return
        try:
            kept = await self._history.read(asked)
        except ApiFailure as failure:
            self._fail(f"set {asked} cannot be read: {failure}")
            return
        if kept is None:
            self._fail(f"no set of version {asked} is kept")
            return
        self.version, self.problem, self._kept = asked, "", kept
        self._log.warning("rolled back", version=asked)

    def give(self, planned: Distribution) -> Distribution:
        """What is to be given out."""
        self.given = planned if self._kept is None else gone_back(self._kept, planned)
        self._withheld = withheld(planned, self.given, self.version)
        return self.given

    @property
    def withheld(self) -> Mapping[ResourceId, str]:
        """What is planned and not given out, and why."""
        return self._withheld

    def _fail(self, problem: str) -> None:
        if problem != self.problem:
            self._log.warning("not rolled back", reason=problem)
        self.problem = problem
