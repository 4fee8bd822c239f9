"""Writes status by server-side apply: what differs only, paced, and never over another release's head."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog

from ratelimit_operator.api.objects import MANAGER
from ratelimit_operator.cluster.api_server import POLICIES, PROFILES, ApiFailure, ApiServer, Collection
from ratelimit_operator.cluster.ownership import apply_unless_contested
from ratelimit_operator.plan.judging import Status, Wanted
from ratelimit_operator.plan.pacing import Pacer
from ratelimit_operator.plan.statuses import patience_s
from ratelimit_service.policy.model import API_VERSION

_PARALLEL: Final = 6
_AFTER_FAILURE_S: Final = 1.0


class StatusWriter:
    """Writes what `wanted` says, as fast as it may.

    Args:
        api: The API server.
        controller: Name of the release's controller; part of the field manager's name.
        wanted: Gives every status that differs from what it is, by key; called anew for each round.
        on_write: Called after a write with what was written and the object that came of it.
        is_contested: Whether another release has written the object of that key since this one began.

    Attributes:
        writes: By result: `ok`, `conflict`, `gone`, `failed`.
    """

    def __init__(
        self,
        api: ApiServer,
        controller: str,
        wanted: Callable[[], Mapping[str, Wanted]],
        on_write: Callable[[Wanted, bytes], None],
        is_contested: Callable[[str], bool],
    ) -> None:
        self._api = api
        self._manager = f"{MANAGER}/{controller}"
        self._wanted = wanted
        self._on_write = on_write
        self._is_contested = is_contested
        self._pacer = Pacer(time.monotonic())
        self._log = structlog.get_logger("tidegate.status")
        self._wake = asyncio.Event()
        self._gone: dict[str, str] = {}
        self._contested: dict[str, str] = {}
        self.writes: dict[str, int] = {}

    @property
    def overlap(self) -> str:
        """Why another release seems to write the same objects, empty: none does."""
        return next(iter(self._contested.values()), "")

    def wake(self) -> None:
        """Something may differ now."""
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            self._wake.clear()
            wait_s = await self._round()
            try:
                await asyncio.wait_for(self._wake.wait(), wait_s)
            except TimeoutError:
                continue

    async def _round(self) -> float | None:
        """Write what may be written now; seconds until something that waits may be, None: nothing waits."""
        wanted = self._wanted()
        # Looked at no further than is chosen from: thousands may wait.
        patience = (
            (key, patience_s(each.before, each.after))
            for key, each in wanted.items()
            if each.uid != self._gone.get(key)
        )
        chosen, wait_s = self._pacer.choose(patience, time.monotonic(), _PARALLEL)
        ready = [wanted[key] for key in chosen]
        results = await asyncio.gather(*(self._write(each) for each in ready))
        if not all(results):
            await asyncio.sleep(_AFTER_FAILURE_S if not any(results) else 0)
            return _AFTER_FAILURE_S if wait_s is None else min(wait_s, _AFTER_FAILURE_S)
        return wait_s

    async def _write(self, wanted: Wanted) -> bool:
        """True: done, or not to be tried again before something changes."""
        collection: Collection = POLICIES if wanted.kind == "RateLimitPolicy" else PROFILES
        url = f"{collection.url(wanted.namespace, wanted.name)}/status"
        result = "ok"
        try:
            body = await apply_unless_contested(
                self._api, url, self._body(wanted), self._manager, is_contested=self._is_contested(wanted.key)
            )
        except ApiFailure as failure:
            result = {404: "gone", 409: "conflict"}.get(failure.code, "failed")
            if result == "conflict":
                self._contested[wanted.key] = f"{wanted.key} is written by another release, too: {failure}"
            if result == "gone":
                self._gone[wanted.key] = wanted.uid
            if result in ("conflict", "failed"):
                self._log.warning("status not written", object=wanted.key, reason=str(failure))
        else:
            self._contested.pop(wanted.key, None)
            self._on_write(wanted, body)
        self.writes[result] = self.writes.get(result, 0) + 1
        return result not in ("failed", "conflict")

    @staticmethod
    def _body(wanted: Wanted) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": wanted.kind,
            "metadata": {"name": wanted.name, "namespace": wanted.namespace, "uid": wanted.uid},
            "status": status_body(wanted.after),
        }


def status_body(status: Status) -> dict[str, Any]:
    """A status as JSON-like values; fields that say nothing are left out."""
    body: dict[str, Any] = _without_nothing(msgspec.to_builtins(status))
    return {key: value for key, value in body.items() if value not in ([], ())}


def _without_nothing(value: Any) -> Any:
    """The value without what is None, at any depth: the API server wants such fields absent."""
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return [_without_nothing(item) for item in value] if isinstance(value, list | tuple) else value
