"""Policies from files and folders, taken anew within a second of a change.

A process of its own watches, reads and compiles (`watch`); here its messages become a snapshot, in slices, between
requests. A bad set is refused whole, and the last good one stays (DECISIONS 34).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.compile import CompileOptions
from ratelimit_service.policy.plan import Assembly, dismantle_steps
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.sources.child import Child, ChildFailed
from ratelimit_service.sources.contract import Applied, Apply, LoadObserver, Refused
from ratelimit_service.sources.frames import (
    DomainBegins,
    DomainEnds,
    Frame,
    Leaves,
    SetBegins,
    SetEnds,
    SetRefused,
    WatchSettings,
    decode_frame,
    encode_frame,
)
from ratelimit_service.sources.pacing import Pace, no_collection

POLL_MS: Final = 250
"""How often the files are looked at."""

_RESTART_S: Final = 1.0


class FileSource:
    """Watches policy files and applies what they say. Belongs to one event loop.

    Attributes:
        version: Version of the set in force, empty: none yet.
        problems: What was wrong with the last set that was read, warnings included; empty: nothing.
        loads: Sets that were taken.
        load_errors: Sets that were refused, and failures of the watching process.
        last_success_us: Wall time of the last set that was taken, microseconds, 0: none yet.
        last_duration_us: How long the last load took, from reading the files to `apply`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        apply: Apply,
        options: CompileOptions | None = None,
        observer: LoadObserver | None = None,
        poll_ms: int = POLL_MS,
    ) -> None:
        self._settings = WatchSettings(tuple(paths), options or CompileOptions(), poll_ms)
        self._apply = apply
        self._observer = observer
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[Applied | Refused] | None = None
        self._retired: list[Snapshot] = []
        self._in_force: Snapshot | None = None
        self.version = ""
        self.problems: tuple[Problem, ...] = ()
        self.loads = 0
        self.load_errors = 0
        self.last_success_us = 0
        self.last_duration_us = 0

    async def start(self) -> Applied | Refused:
        """Begin to watch; returns what became of the first set. Watching goes on whatever became of it."""
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="policy files")
        return await asyncio.shield(self._first)

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
                self._refused((Problem(" ".join(self._settings.paths), "", message),), 0)
            await asyncio.sleep(_RESTART_S)

    async def _follow_watcher(self) -> None:
        """Start the watching process and take its sets until it ends; it is stopped on every way out."""
        child = await Child.start("ratelimit_service.sources.watch")
        try:
            child.send(encode_frame(self._settings))
            while True:
                await self._take_set(child)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ChildFailed(f"it sent what cannot be read: {error}") from error
        finally:
            await asyncio.shield(child.stop())

    async def _take_set(self, child: Child) -> None:
        """Take the next set, refused or whole."""
        first = decode_frame(await child.read())
        if isinstance(first, SetRefused):
            self._refused(first.problems, first.load_us)
            return
        if not isinstance(first, SetBegins):
            raise ChildFailed(f"{type(first).__name__} outside a set")
        start_ns = time.monotonic_ns()
        with no_collection():
            snapshot = await _assemble(child, first.version)
        duration_us = first.load_us + (time.monotonic_ns() - start_ns) // 1_000
        # The same content again (a comment, another file name): nothing to change, counters and memos stay warm.
        if first.version == self.version:
            self._retired.append(snapshot)
            outcome: Applied | Refused = Applied(self.version)
        else:
            outcome = self._put_in_force(snapshot)
        del snapshot
        if isinstance(outcome, Refused):
            self._refused((*outcome.problems, *first.warnings), duration_us)
        else:
            self._applied(Applied(first.version, (*outcome.warnings, *first.warnings)), duration_us)
        await Pace().take(dismantle_steps(self._retired))

    def _put_in_force(self, snapshot: Snapshot) -> Applied | Refused:
        outcome = self._apply(snapshot)
        if isinstance(outcome, Refused):
            self._retired.append(snapshot)
        else:
            if self._in_force is not None:
                self._retired.append(self._in_force)
            self._in_force = snapshot
        return outcome

    def _applied(self, applied: Applied, duration_us: int) -> None:
        self.version, self.problems = applied.version, applied.warnings
        self.loads += 1
        self.last_success_us, self.last_duration_us = time.time_ns() // 1_000, duration_us
        if self._observer is not None:
            self._observer.load_succeeded(applied, duration_us)
        self._answer_start(applied)

    def _refused(self, problems: tuple[Problem, ...], duration_us: int) -> None:
        self.problems = problems
        self.load_errors += 1
        self.last_duration_us = duration_us
        if self._observer is not None:
            self._observer.load_failed(problems, duration_us)
        self._answer_start(Refused(problems))

    def _answer_start(self, outcome: Applied | Refused) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(outcome)


async def _assemble(child: Child, version: str) -> Snapshot:
    """Build the set that follows on the pipe, never holding the loop for more than about half a millisecond."""
    assembly, pace = Assembly(version), Pace()
    while True:
        frame = decode_frame(await child.read())
        if isinstance(frame, SetEnds):
            return assembly.finish()
        await pace.take(_steps(assembly, frame))


def _steps(assembly: Assembly, frame: Frame) -> Iterator[None]:
    """Put one message into the assembly, step by step, with a step at its end."""
    if isinstance(frame, DomainBegins):
        assembly.open_domain(frame.head)
    elif isinstance(frame, Leaves):
        yield from assembly.add(frame.leaves)
    elif isinstance(frame, DomainEnds):
        yield from assembly.close_domain()
    else:
        raise ChildFailed(f"{type(frame).__name__} inside a set")
    yield
