"""The process that holds the stream: asks, keeps the last good set, compiles, and tells the serving process.

What it sends is compared with what the serving process has taken, not with what the server sent last: a response that
is refused, here or there, leaves everything as it was, and the next one is judged against that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from ratelimit_service.policy.problems import Problem
from ratelimit_service.sources.bursts import in_bursts
from ratelimit_service.sources.frames import HEADER_BYTES, MAX_PROBLEMS, SetRefused
from ratelimit_service.sources.xds.backoff import wait_s
from ratelimit_service.sources.xds.compiled import CompiledSet, RefusedSet, compile_set
from ratelimit_service.sources.xds.frames import (
    ChangeBegins,
    ClientFrame,
    ClientSettings,
    Connection,
    Told,
    Waiting,
    change_frames,
    decode_outcome,
    decode_settings,
    encode,
)
from ratelimit_service.sources.xds.storage import find_sets, keep_set
from ratelimit_service.sources.xds.stream import Stream, StreamFailed, Target, open_stream, resolve
from ratelimit_service.wire.protobuf import MalformedMessage
from ratelimit_service.wire.xds.discovery import (
    DiscoveryRequest,
    decode_response,
    encode_request,
    nack_of,
)
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, Refusal
from ratelimit_service.wire.xds.snapshot_part import StoredSet

_QUIET_S: Final = 0.5
"""A stream that is taken and not ended for so long is good, although nothing had to be said on it."""
_GOOD_S: Final = 10.0
"""A stream that lasted so long was good, whatever came over it."""
_KEEP_EVERY_S: Final = 5.0
"""Least pause between two writings of the last good set."""


class Client:
    """Follows one operator. Belongs to one event loop."""

    def __init__(self, settings: ClientSettings, stdin: asyncio.StreamReader, stdout: BinaryIO) -> None:
        self._address = settings.address
        self._options = settings.options
        self._type_url = RESOURCE_TYPE if settings.address.resources == "tidegate" else RATE_LIMIT_CONFIG_TYPE
        self._stdin = stdin
        self._stdout = stdout
        self._taken = CompiledSet()
        self._has_taken = False
        self._version = ""
        self._failures = 0
        self._told_down = ""
        self._unkept: StoredSet | None = None
        self._kept_at_s = -_KEEP_EVERY_S
        self._keeping: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Begin with what is on disk, then follow whichever server accepts, for ever."""
        await self._begin()
        while True:
            await self._round()
            await asyncio.sleep(wait_s(self._failures, random.random()))  # noqa: S311 — spreads load, guards nothing

    async def close(self) -> None:
        """Keep what is not kept yet."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        self._keep_now()

    # What is on disk.

    async def _begin(self) -> None:
        folders = [Path(folder) for folder in (self._address.snapshot, self._address.bootstrap) if folder]
        found, problems = find_sets(folders, self._type_url)
        for problem in problems:
            await self._tell([Told(problem)])
        for each in found:
            stored = each.stored
            refused = await self._take(stored.resources, stored.version, each.folder)
            if refused is None:
                return
        await self._tell([Waiting()])

    def _keep_later(self, resources: tuple[bytes, ...]) -> None:
        """Keep a set soon, and a set that changes all the time now and then."""
        if not self._address.snapshot:
            return
        self._unkept = StoredSet(self._version, time.time_ns() // 1_000, self._type_url, resources)
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep_soon())

    async def _keep_soon(self) -> None:
        await asyncio.sleep(max(0.0, self._kept_at_s + _KEEP_EVERY_S - time.monotonic()))
        problem = self._keep_now()
        if problem:
            await self._tell([Told(problem)])

    def _keep_now(self) -> str:
        stored, self._unkept = self._unkept, None
        folder = self._address.snapshot
        if stored is None:
            return ""
        self._kept_at_s = time.monotonic()
        try:
            with self._pace():
                keep_set(Path(folder), stored)
        except OSError as error:
            return f"the last good set cannot be kept in {folder}: {error.strerror}"
        return ""

    # The stream.

    async def _round(self) -> None:
        """Try every address once; returns when a stream that was good has ended, or none was."""
        targets, problems = await resolve(self._address.servers)
        for target in targets:
            start_s = time.monotonic()
            try:
                problem = await self._follow(target)
            except StreamFailed as error:
                problem, was_good = str(error), False
            else:
                was_good = True
            if was_good or time.monotonic() - start_s >= _GOOD_S:
                self._failures = 0
                await self._tell([Connection(connected=False, address=str(target.address), reason=problem)])
                return
            problems.append(f"{target.address}: {problem}")
        self._failures += 1
        reason = "; ".join(problems)
        # The same again is no news; the metric says since when.
        if reason != self._told_down:
            self._told_down = reason
            names = ",".join(map(str, self._address.servers))
            await self._tell([Connection(connected=False, address=names, reason=reason)])

    async def _follow(self, target: Target) -> str:
        """Follow one address until its stream ends; returns why, raises StreamFailed if it was never good."""
        first = DiscoveryRequest(self._type_url, self._version, self._address.node)
        is_good = False
        async with open_stream(target, self._address, encode_request(first)) as stream:
            try:
                reading = asyncio.ensure_future(stream.receive())
                done, _ = await asyncio.wait({reading}, timeout=_QUIET_S)
                if not done or reading.exception() is None:
                    is_good = True
                    self._told_down = ""
                    await self._tell([Connection(connected=True, address=str(target.address))])
                while True:
                    body = await reading
                    await self._answer(stream, body)
                    reading = asyncio.ensure_future(stream.receive())
            except StreamFailed as error:
                if not is_good:
                    raise
                return str(error)
            finally:
                reading.cancel()

    async def _answer(self, stream: Stream, body: bytes) -> None:
        """Take a response or refuse it, and say so."""
        try:
            with self._pace():
                response = decode_response(body)
        except MalformedMessage as error:
            # There is no nonce to refuse it by.
            raise StreamFailed(f"the server sent no response: {error}") from error
        if response.type_url != self._type_url:
            return
        refused = await self._take(response.resources, response.version_info, "stream")
        nack = None
        if refused is None:
            self._keep_later(response.resources)
        else:
            lines = [str(problem) for problem in refused.problems]
            nack = nack_of(refused.refusals, "; ".join(lines))
        answer = DiscoveryRequest(self._type_url, self._version, response_nonce=response.nonce, nack=nack)
        await stream.send(encode_request(answer))

    # The set.

    async def _take(self, resources: tuple[bytes, ...], version: str, origin: str) -> RefusedSet | None:
        """Compile a set and have it put in force; what is refused leaves everything as it was."""
        start_ns = time.monotonic_ns()
        with self._pace():
            compiled = compile_set(self._taken, self._type_url, resources, self._options)
        load_us = (time.monotonic_ns() - start_ns) // 1_000
        if isinstance(compiled, RefusedSet):
            await self._tell([SetRefused(_first(compiled.problems), load_us)])
            return compiled
        changed, gone = compiled.changed_from(self._taken)
        whole = not self._has_taken
        begins = ChangeBegins(
            compiled.version, compiled.shadow, _first(compiled.all_warnings()), load_us, whole, origin
        )
        await self._tell(change_frames(begins, changed, gone))
        outcome = decode_outcome(await _read_frame(self._stdin))
        if outcome.problems:
            refusals = compiled.refusals_of(outcome.problems) or [Refusal("", "", message="cannot be put in force")]
            return RefusedSet(tuple(refusals), outcome.problems)
        self._taken, self._has_taken, self._version = compiled, True, version
        return None

    async def _tell(self, frames: Iterable[ClientFrame]) -> None:
        with self._pace():
            encoded = [encode(frame) for frame in frames]
        # The serving process reads in slices: a large set takes it a while, in which the stream is to be kept alive.
        await asyncio.to_thread(self._write, encoded)

    def _pace(self) -> contextlib.AbstractContextManager[None]:
        # The first set is waited for; from then on there are requests that must not wait.
        return in_bursts() if self._has_taken else contextlib.nullcontext()

    def _write(self, encoded: list[bytes]) -> None:
        self._stdout.writelines(encoded)
        self._stdout.flush()


def _first(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    return problems[:MAX_PROBLEMS]


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    size_bytes = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
    return await reader.readexactly(size_bytes)


async def follow(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Run a client until `stdin` ends or `stdout` has no reader."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**26)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdin)
    with contextlib.suppress(asyncio.IncompleteReadError, BrokenPipeError):
        client = Client(decode_settings(await _read_frame(reader)), reader, stdout)
        running = asyncio.ensure_future(client.run())
        ended = asyncio.ensure_future(_until_end(reader))
        try:
            await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            for task in (running, ended):
                task.cancel()
            await asyncio.gather(running, ended, return_exceptions=True)
            await client.close()
    transport.close()


async def _until_end(reader: asyncio.StreamReader) -> None:
    # Only `_take` reads messages; the end of the pipe is seen here, whoever waits.
    while not reader.at_eof():  # noqa: ASYNC110 — a reader tells nobody of its end but who reads
        await asyncio.sleep(0.05)


def main() -> None:
    """Entry of `python -m ratelimit_service.sources.xds.client`."""
    # Ctrl-C and a supervisor's SIGTERM reach the whole process group; the service decides when this process ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The service's own work comes first where both share a core.
    os.nice(5)
    asyncio.run(follow(sys.stdin.buffer, sys.stdout.buffer))


if __name__ == "__main__":
    main()
