"""Policies from files and folders, taken anew within a second of a change.

A process of its own watches, reads and compiles (`watch`); here its messages become a snapshot, in slices, between
requests. A bad set is refused whole, and the last good one stays (DECISIONS 34).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.compile import CompileOptions
from ratelimit_service.policy.plan import Assembly, dismantle_steps
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.sources.contract import Applied, Apply, LoadObserver, Refused
from ratelimit_service.sources.frames import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
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

POLL_MS: Final = 250
"""How often the files are looked at."""

_SLICE_NS: Final = 500_000
_REST_S: Final = 0.001
_RESTART_S: Final = 1.0
_CLOSE_S: Final = 2.0


class _WatcherFailed(Exception):
    """The watching process ended, or what it sends makes no sense."""


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
            except (_WatcherFailed, OSError) as error:
                message = f"the process that reads the policies failed and is started again: {error}"
                self._refused((Problem(" ".join(self._settings.paths), "", message),), 0)
            await asyncio.sleep(_RESTART_S)

    async def _follow_watcher(self) -> None:
        """Start the watching process and take its sets until it ends; it is stopped on every way out."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ratelimit_service.sources.watch",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # The child must find this very package, wherever it was imported from.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(encode_frame(self._settings))
            while True:
                await self._take_set(process.stdout)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            code = await process.wait()
            raise _WatcherFailed(f"it ended with status {code}") from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise _WatcherFailed(f"it sent what cannot be read: {error}") from error
        finally:
            await asyncio.shield(_stop(process))

    async def _take_set(self, reader: asyncio.StreamReader) -> None:
        """Take the next set, refused or whole."""
        first = await _read_frame(reader)
        if isinstance(first, SetRefused):
            self._refused(first.problems, first.load_us)
            return
        if not isinstance(first, SetBegins):
            raise _WatcherFailed(f"{type(first).__name__} outside a set")
        start_ns = time.monotonic_ns()
        with _no_collection():
            snapshot = await _assemble(reader, first.version)
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
        await _Pace().take(dismantle_steps(self._retired))

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


async def _read_frame(reader: asyncio.StreamReader) -> Frame:
    size_bytes = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
    if size_bytes > MAX_FRAME_BYTES:
        raise _WatcherFailed(f"a message of {size_bytes} bytes")
    return decode_frame(await reader.readexactly(size_bytes))


async def _assemble(reader: asyncio.StreamReader, version: str) -> Snapshot:
    """Build the set that follows on the pipe, never holding the loop for more than about half a millisecond."""
    assembly, pace = Assembly(version), _Pace()
    while True:
        frame = await _read_frame(reader)
        if isinstance(frame, SetEnds):
            return assembly.finish()
        await pace.take(_steps(assembly, frame))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the cyclic collector away from a set, now and later.

    It would walk the half-built tree again and again, and the finished one at each full collection: tens of
    milliseconds for a large set. Trees have no cycles, so frozen ones are freed as ever, when the last reference goes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


class _Pace:
    """Takes steps in slices, with a rest after each: requests get at least half of the core meanwhile."""

    def __init__(self) -> None:
        self._until_ns = time.monotonic_ns() + _SLICE_NS

    async def take(self, steps: Iterator[None]) -> None:
        """Exhaust `steps`; a slice goes on over several calls."""
        for _ in steps:
            if time.monotonic_ns() >= self._until_ns:
                await asyncio.sleep(_REST_S)
                self._until_ns = time.monotonic_ns() + _SLICE_NS


def _steps(assembly: Assembly, frame: Frame) -> Iterator[None]:
    """Put one message into the assembly, step by step, with a step at its end."""
    if isinstance(frame, DomainBegins):
        assembly.open_domain(frame.head)
    elif isinstance(frame, Leaves):
        yield from assembly.add(frame.leaves)
    elif isinstance(frame, DomainEnds):
        yield from assembly.close_domain()
    else:
        raise _WatcherFailed(f"{type(frame).__name__} inside a set")
    yield


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the watching process: kindly by closing its input, else by force."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _CLOSE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
