"""Policies that come as messages (`frames`) from another process, and become a snapshot in slices, between requests.

A bad set is refused whole, and the last good one stays (DECISIONS 34).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from ratelimit_service.policy.plan import Assembly, dismantle_steps
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.sources.child import ChildFailed
from ratelimit_service.sources.contract import Applied, Apply, LoadObserver, Refused
from ratelimit_service.sources.frames import (
    HEADER_BYTES,
    DomainBegins,
    DomainEnds,
    Frame,
    Leaves,
    SetBegins,
    SetEnds,
    SetRefused,
    decode_frame,
)
from ratelimit_service.sources.pacing import Pace, no_collection

Relay = Callable[[Frame, bytes], None]
"""Is given every message, and its bytes with their length before them, as they came."""


class Sender(Protocol):
    """Whoever sends sets (`child.Child`, or the parent of a worker)."""

    async def read(self) -> bytes:
        """The content of the next message.

        Raises:
            ChildFailed: There will be none.
        """


class StreamedSource:
    """Takes sets from a sender. Belongs to one event loop; whoever knows the sender says `take_set`.

    Attributes:
        version: Version of the set in force, empty: none yet.
        problems: What was wrong with the last set that was read, warnings included; empty: nothing.
        loads: Sets that were taken.
        load_errors: Sets that were refused, and failures of the sending process.
        last_success_us: Wall time of the last set that was taken, microseconds, 0: none yet.
        last_duration_us: How long the last load took, from reading the files to `apply`.
    """

    def __init__(self, apply: Apply, observer: LoadObserver | None = None, relay: Relay | None = None) -> None:
        """Put sets in force by `apply`, tell `observer` of each, and pass every message on to `relay`."""
        self._apply = apply
        self._observer = observer
        self._relay = relay
        self._first: asyncio.Future[Applied | Refused] | None = None
        self._retired: list[Snapshot] = []
        self._in_force: Snapshot | None = None
        self.version = ""
        self.problems: tuple[Problem, ...] = ()
        self.loads = 0
        self.load_errors = 0
        self.last_success_us = 0
        self.last_duration_us = 0

    async def first(self) -> Applied | Refused:
        """What becomes of the first set; asked before it can have come."""
        self._first = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._first)

    async def take_set(self, sender: Sender) -> None:
        """Take the next set, refused or whole.

        Raises:
            ChildFailed: There is none, or what comes makes no sense.
            msgspec.MsgspecError: What comes is no message.
        """
        first = await self._read(sender)
        if isinstance(first, SetRefused):
            self.refuse(first.problems, first.load_us)
            return
        if not isinstance(first, SetBegins):
            raise ChildFailed(f"{type(first).__name__} outside a set")
        start_ns = time.monotonic_ns()
        with no_collection():
            snapshot = await self._assemble(sender, first.version)
        duration_us = first.load_us + (time.monotonic_ns() - start_ns) // 1_000
        # The same content again (a comment, another file name): nothing to change, counters and memos stay warm.
        if first.version == self.version:
            self._retired.append(snapshot)
            outcome: Applied | Refused = Applied(self.version)
        else:
            outcome = self._put_in_force(snapshot)
        del snapshot
        if isinstance(outcome, Refused):
            self.refuse((*outcome.problems, *first.warnings), duration_us)
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

    def refuse(self, problems: tuple[Problem, ...], duration_us: int) -> None:
        """A set was refused, or there was none to be had; what was in force stays."""
        self.problems = problems
        self.load_errors += 1
        self.last_duration_us = duration_us
        if self._observer is not None:
            self._observer.load_failed(problems, duration_us)
        self._answer_start(Refused(problems))

    async def _read(self, sender: Sender) -> Frame:
        content = await sender.read()
        frame = decode_frame(content)
        if self._relay is not None:
            self._relay(frame, len(content).to_bytes(HEADER_BYTES, "big") + content)
        return frame

    async def _assemble(self, sender: Sender, version: str) -> Snapshot:
        """Build the set that follows, never holding the loop for more than about half a millisecond."""
        assembly, pace = Assembly(version), Pace()
        while True:
            frame = await self._read(sender)
            if isinstance(frame, SetEnds):
                return assembly.finish()
            await pace.take(_steps(assembly, frame))

    def _answer_start(self, outcome: Applied | Refused) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(outcome)


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
