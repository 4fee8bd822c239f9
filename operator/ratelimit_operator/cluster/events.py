"""Posts Kubernetes Events: on transitions, deduplicated, limited; one that cannot be posted is not tried again."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime
from typing import Any, Final

from ratelimit_operator.api.conditions import shortened
from ratelimit_operator.api.objects import MANAGER
from ratelimit_operator.cluster.api_server import EVENTS, ApiFailure, ApiServer
from ratelimit_operator.plan.announcements import Announcement, SpamFilter, Transitions
from ratelimit_operator.plan.judging import Wanted
from ratelimit_service.policy.model import API_VERSION

_MOST_WAITING: Final = 1_000
_MAX_MESSAGE: Final = 1_024


class EventPoster:
    """Tells what turned.

    Attributes:
        counts: By result: `posted`, `suppressed`, `failed`.
    """

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._filter = SpamFilter()
        self._transitions = Transitions()
        self._waiting: asyncio.Queue[tuple[Wanted, Announcement]] = asyncio.Queue(_MOST_WAITING)
        self.counts: dict[str, int] = {}

    def tell(self, wrote: Wanted) -> None:
        """A status was written."""
        for each in self._transitions.between(wrote.uid, wrote.before.conditions, wrote.after.conditions):
            if self._waiting.full() or not self._filter.admits(wrote.uid, each, time.monotonic()):
                self._count("suppressed")
            else:
                self._waiting.put_nowait((wrote, each))

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            wrote, announcement = await self._waiting.get()
            try:
                await self._api.create(EVENTS.url(wrote.namespace), _body(wrote, announcement))
            except ApiFailure:
                self._count("failed")
            else:
                self._count("posted")

    def _count(self, result: str) -> None:
        self.counts[result] = self.counts.get(result, 0) + 1


def _body(wrote: Wanted, announcement: Announcement) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{wrote.name[:220]}.{secrets.token_hex(8)}", "namespace": wrote.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": wrote.kind,
            "name": wrote.name,
            "namespace": wrote.namespace,
            "uid": wrote.uid,
        },
        "type": "Warning" if announcement.is_warning else "Normal",
        "reason": announcement.reason,
        "message": shortened(announcement.message, _MAX_MESSAGE),
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "reportingInstance": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
