"""Policies from files and folders, taken anew within a second of a change.

A process of its own watches, reads and compiles (`watch`); here its messages become a snapshot (`streamed`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.problems import Problem
from ratelimit_service.sources.child import Child, ChildFailed
from ratelimit_service.sources.contract import Applied, Apply, LoadObserver, Refused
from ratelimit_service.sources.frames import (
    WatchSettings,
    encode_frame,
)
from ratelimit_service.sources.streamed import Relay, StreamedSource

POLL_MS: Final = 250
"""How often the files are looked at."""

_RESTART_S: Final = 1.0


class FileSource(StreamedSource):
    """Watches policy files and applies what they say."""

    def __init__(
        self,
        paths: Sequence[str],
        apply: Apply,
        options: CompileOptions | None = None,
        observer: LoadObserver | None = None,
        poll_ms: int = POLL_MS,
        relay: Relay | None = None,
    ) -> None:
        super().__init__(apply, observer, relay)
        self._settings = WatchSettings(tuple(paths), options or CompileOptions(), poll_ms)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Applied | Refused:
        """Begin to watch; returns what became of the first set. Watching goes on whatever became of it."""
        self._task = asyncio.create_task(self._run(), name="policy files")
        return await self.first()

    async def close(self) -> None:
        """Stop watching; the set in force stays in force."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._follow_watcher()
            except (ChildFailed, OSError) as error:
                message = f"the process that reads the policies failed and is started again: {error}"
                self.refuse((Problem(" ".join(self._settings.paths), "", message),), 0)
            await asyncio.sleep(_RESTART_S)

    async def _follow_watcher(self) -> None:
        """Start the watching process and take its sets until it ends; it is stopped on every way out."""
        child = await Child.start("ratelimit_service.sources.watch")
        try:
            child.send(encode_frame(self._settings))
            while True:
                await self.take_set(child)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ChildFailed(f"it sent what cannot be read: {error}") from error
        finally:
            await asyncio.shield(child.stop())
