"""Policies from an operator, seen from the process that serves: applies what the child sends, between requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final, NoReturn, Protocol

import msgspec

from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import Assembly, dismantle_steps, merged
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.sources.child import Child, ChildFailed
from ratelimit_service.sources.contract import Applied, Apply, LoadObserver, Refused
from ratelimit_service.sources.frames import DomainBegins, DomainEnds, Leaves, SetEnds, SetRefused
from ratelimit_service.sources.pacing import Pace, no_collection
from ratelimit_service.sources.xds.frames import (
    ChangeBegins,
    ClientFrame,
    ClientSettings,
    Connection,
    DomainsGone,
    Outcome,
    Told,
    Waiting,
    decode,
    encode,
)
from ratelimit_service.xds_address import XdsAddress

_RESTART_S: Final = 1.0
_MODULE: Final = "ratelimit_service.sources.xds.client"


class XdsObserver(LoadObserver, Protocol):
    """Is told of loads and of the stream; called on the event loop."""

    def stream_changed(self, connected: bool, address: str, reason: str) -> None:
        """A stream is there, or not any more; `reason`: why not."""

    def source_told(self, message: str) -> None:
        """Something went wrong that changes nothing now."""


class XdsSource:
    """Follows an operator. Belongs to one event loop.

    Attributes:
        version: Version of the set in force, empty: none yet.
    """

    def __init__(self, address: XdsAddress, apply: Apply, options: CompileOptions, observer: XdsObserver) -> None:
        self._settings = ClientSettings(address, options)
        self._apply = apply
        self._observer = observer
        self._task: asyncio.Task[NoReturn] | None = None
        self._first: asyncio.Future[Applied | Refused | None] | None = None
        self._in_force: Snapshot | None = None
        self._retired: list[Snapshot] = []
        self.version = ""

    async def start(self) -> Applied | Refused | None:
        """Begin to follow; returns what became of the set on disk, None: there is none that is good yet."""
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="policies over xDS")
        # A task that fails, which none should, must not leave its service waiting.
        either: list[asyncio.Future[Any]] = [self._first, self._task]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return self._first.result() if self._first.done() else self._task.result()

    async def close(self) -> None:
        """Follow no more; the set in force stays in force."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> NoReturn:
        while True:
            try:
                await self._follow()
            except (ChildFailed, OSError) as error:
                self._observer.source_told(
                    f"the process that follows the operator failed and is started again: {error}"
                )
                self._observer.stream_changed(connected=False, address="", reason=str(error))
                self._answer_start(None)
            await asyncio.sleep(_RESTART_S)

    async def _follow(self) -> NoReturn:
        child = await Child.start(_MODULE)
        try:
            child.send(encode(self._settings))
            while True:
                await self._take_frame(child)
        except msgspec.MsgspecError as error:
            raise ChildFailed(f"it sent what cannot be read: {error}") from error
        finally:
            await asyncio.shield(child.stop())

    async def _take_frame(self, child: Child) -> None:
        frame = decode(await child.read())
        if isinstance(frame, ChangeBegins):
            await self._take_change(child, frame)
        elif isinstance(frame, SetRefused):
            self._observer.load_failed(frame.problems, frame.load_us)
        elif isinstance(frame, Connection):
            self._observer.stream_changed(frame.connected, frame.address, frame.reason)
        elif isinstance(frame, Told):
            self._observer.source_told(frame.message)
        elif isinstance(frame, Waiting):
            self._answer_start(None)
        else:
            raise ChildFailed(f"{type(frame).__name__} outside a set")

    async def _take_change(self, child: Child, begins: ChangeBegins) -> None:
        """Build what follows, put it in force, and tell the child what became of it."""
        start_ns = time.monotonic_ns()
        # Where little changes, the collector has little to walk, and freezing each time would keep its garbage too.
        with no_collection() if begins.whole else contextlib.nullcontext():
            snapshot = await self._assemble(child, begins)
        duration_us = begins.load_us + (time.monotonic_ns() - start_ns) // 1_000
        # Merging was a slice of its own.
        await asyncio.sleep(0)
        before = self._in_force
        same = before is not None and (before.version, before.shadow) == (snapshot.version, snapshot.shadow)
        # The same content again: nothing to change, counters and memos stay warm.
        outcome = Applied(snapshot.version) if same else self._apply(snapshot)
        if isinstance(outcome, Refused):
            child.send(encode(Outcome(outcome.problems)))
            self._observer.load_failed((*outcome.problems, *begins.warnings), duration_us)
            self._retired.append(snapshot)
        else:
            # Before anything that may take its time: it is in force now, and the operator counts.
            child.send(encode(Outcome()))
            if before is not None:
                self._retired.append(before)
            self._in_force, self.version = snapshot, snapshot.version
            self._observer.load_succeeded(Applied(snapshot.version, begins.warnings), duration_us)
            self._answer_start(Applied(snapshot.version, begins.warnings))
        del before, snapshot
        await asyncio.sleep(0)
        await self._let_go()

    async def _let_go(self) -> None:
        """Free what is not in force, slowly, but for what the set in force shares with it."""
        kept = self._in_force
        retired = [_unshared(each, kept) for each in self._retired]
        self._retired.clear()
        await Pace().take(dismantle_steps(retired))

    async def _assemble(self, child: Child, begins: ChangeBegins) -> Snapshot:
        assembly, pace = Assembly(begins.version), Pace()
        gone: list[bytes] = []
        while True:
            frame = decode(await child.read())
            if isinstance(frame, SetEnds):
                break
            if isinstance(frame, DomainsGone):
                gone += [name.encode() for name in frame.names]
            await pace.take(_steps(assembly, frame))
        changed = msgspec.structs.replace(assembly.finish(), shadow=begins.shadow)
        if begins.whole or self._in_force is None:
            return changed
        return merged(self._in_force, changed, gone)

    def _answer_start(self, outcome: Applied | Refused | None) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(outcome)


def _steps(assembly: Assembly, frame: ClientFrame) -> Iterator[None]:
    """Put one message into the assembly, step by step, with a step at its end."""
    if isinstance(frame, DomainBegins):
        assembly.open_domain(frame.head)
    elif isinstance(frame, Leaves):
        yield from assembly.add(frame.leaves)
    elif isinstance(frame, DomainEnds):
        yield from assembly.close_domain()
    elif not isinstance(frame, DomainsGone):
        raise ChildFailed(f"{type(frame).__name__} inside a set")
    yield


def _unshared(retired: Snapshot, kept: Snapshot | None) -> Snapshot:
    """The domains of a retired snapshot that the one in force does not hold."""
    if kept is None:
        return retired
    domains = {name: domain for name, domain in retired.domains.items() if kept.domains.get(name) is not domain}
    return Snapshot(retired.version, domains, {})
