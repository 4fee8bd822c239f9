"""One connection to Redis that carries commands, replies and the news of what changed.

redis-py makes the connection: names, TLS, login, RESP3. From then on it is read here, all the time, because redis-py's
asyncio client looks at a push only when the next command's reply is read. Commands are answered in the order in which
they were sent, so a caller that gave up waiting harms nobody; what was written in one turn of the loop goes out as one
write.

Tracking is in the default mode with NOLOOP. Default, because there a reply is a barrier for the pushes before
it; with BCAST it is not. NOLOOP, because the writer knows what it wrote. Redis forgets who reads a key when the key is
written, without telling a NOLOOP writer, so a writer that keeps the value reads the key anew in the same script.
Source: Redis manual, "Client-side caching in Redis".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import hiredis
from redis.asyncio.connection import AbstractConnection

from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.staleness import NEVER_HEARD_US

__all__ = ["ALL_KEYS", "CommandRefused", "Link", "Listener", "Reply"]

Reply = Any
"""What Redis answers: bytes, an integer, None, or a list of these."""

Argument = bytes | str | int
"""A part of a command."""

ALL_KEYS: Final = None
"""In place of the keys that changed: any may have."""

_READ_BYTES: Final = 64 * 1024
_MOST_WAITING: Final = 100_000
_CLOSE_S: Final = 1.0
_MORE: Final = object()
_PUSH: Final[type] = getattr(hiredis, "PushNotification", type(None))
"""What hiredis makes of a push; releases before 3.2 do not tell one from a reply, so that there is no tracking."""


class CommandRefused(LevelUnavailable):
    """Redis answered with an error; it is up, but would not do this.

    Attributes:
        code: The error's first word, such as `MOVED` or `NOSCRIPT`.
        detail: The rest.
    """

    def __init__(self, message: str) -> None:
        super().__init__("l2", message)
        self.code, _, self.detail = message.partition(" ")


class Listener(Protocol):
    """Who wants the news of a link; called on the loop, must not wait."""

    def keys_changed(self, link: Link, keys: list[bytes] | None) -> None:
        """These keys were written, expired or evicted; `ALL_KEYS`: all of them (FLUSHALL)."""

    def link_lost(self, link: Link, reason: str) -> None:
        """The connection ended; told once."""


class Link:
    """Commands, replies and pushes on one connection that redis-py has made.

    Attributes:
        tracked: Whether Redis tells this link what changes; see `track`.
        heard_us: Send time of the newest command whose reply has arrived.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        listener: Listener,
        now_us: Callable[[], int],
        *,
        pushes: bool,
        subscribed: bool = False,
    ) -> None:
        reader, writer = connection._reader, connection._writer  # noqa: SLF001  # redis-py has no public name for them
        assert reader is not None
        assert writer is not None
        self._connection = connection
        self._reader: asyncio.StreamReader = reader
        self._writer: asyncio.StreamWriter = writer
        self._listener = listener
        self._now_us = now_us
        self._pushes = pushes and _PUSH is not type(None)
        self._subscribed = subscribed
        self._parser = hiredis.Reader(notEnoughData=_MORE, replyError=CommandRefused)
        self._waiting: deque[tuple[asyncio.Future[Reply], int]] = deque()
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._lost = False
        self.tracked = False
        self.heard_us = NEVER_HEARD_US
        self._reading = self._loop.create_task(self._read(), name="tidegate-cache-link")

    @property
    def is_up(self) -> bool:
        """Whether commands may be sent."""
        return not self._lost

    @property
    def oldest_unanswered_us(self) -> int | None:
        """When the oldest command was sent that has no reply yet."""
        return self._waiting[0][1] if self._waiting else None

    def send(self, *parts: Argument) -> asyncio.Future[Reply]:
        """Send a command; the future has its reply, `CommandRefused` included.

        Raises:
            LevelUnavailable: The link is lost, or far too many commands wait.
        """
        if self._lost:
            raise LevelUnavailable("l2", "no connection")
        if len(self._waiting) >= _MOST_WAITING:
            raise LevelUnavailable("l2", "too many commands wait for replies")
        future: asyncio.Future[Reply] = self._loop.create_future()
        # Taken before the bytes leave: an earlier send time only makes the Δ rule stricter.
        self._waiting.append((future, self._now_us()))
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(parts))  # type: ignore[arg-type]  # typed as one word
        return future

    async def call(self, *parts: Argument, timeout_us: int) -> Reply:
        """Send a command and wait for its reply.

        Raises:
            CommandRefused: Redis refused it.
            LevelUnavailable: No reply in time, or the link is or gets lost.
        """
        future = self.send(*parts)
        return await self.reply(future, timeout_us=timeout_us)

    @staticmethod
    async def reply(future: asyncio.Future[Reply], *, timeout_us: int) -> Reply:
        """Wait for the reply to a command that was sent; errors as with `call`."""
        try:
            async with asyncio.timeout(timeout_us / 1e6):
                reply = await future
        except TimeoutError:
            raise LevelUnavailable("l2", f"no answer within {timeout_us // 1000} ms") from None
        if isinstance(reply, LevelUnavailable):
            raise reply
        return reply

    async def track(self, probe_key: bytes, *, timeout_us: int) -> bool:
        """Switch tracking on, if what is there really tells of changes; whether it does.

        A proxy may take the command and never push, so a key is written and its push has to come before the next reply.
        """
        if not self._pushes:
            return False
        probe = _Probe(probe_key)
        listener, self._listener = self._listener, probe
        try:
            commands: tuple[tuple[Argument, ...], ...] = (
                ("CLIENT", "TRACKING", "ON"),
                ("GET", probe_key),
                ("SET", probe_key, b"", "PX", 1),
                ("PING",),
                ("CLIENT", "TRACKING", "OFF"),
                ("CLIENT", "TRACKING", "ON", "NOLOOP"),
            )
            futures = [self.send(*command) for command in commands]
            await asyncio.wait(futures, timeout=timeout_us / 1e6)
        finally:
            self._listener = listener
        if probe.lost_reason is not None:
            listener.link_lost(self, probe.lost_reason)
        taken = all(each.done() and not isinstance(each.result(), LevelUnavailable) for each in futures)
        self.tracked = taken and probe.heard
        return self.tracked

    async def close(self) -> None:
        """End the connection; those who wait get `LevelUnavailable`, the listener hears nothing."""
        self._listener = _Probe(b"")
        self._lose("closed")
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._writer.wait_closed()

    def abort(self, reason: str) -> None:
        """Take the connection for lost."""
        self._lose(reason)

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if data and not self._lost:
            self._writer.write(data)

    async def _read(self) -> None:
        reason = "Redis closed the connection"
        try:
            while data := await self._reader.read(_READ_BYTES):
                self._parser.feed(data)
                while (reply := self._parser.gets()) is not _MORE:
                    self._take(reply)
        except (OSError, hiredis.HiredisError) as error:
            reason = f"{type(error).__name__}: {error}"
        self._lose(reason)

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, _PUSH):
            self._take_push(reply)
        elif self._subscribed and isinstance(reply, list) and reply[0] == b"message":
            self._listener.keys_changed(self, [reply[2]])
        elif self._waiting:
            future, sent_us = self._waiting.popleft()
            self.heard_us = sent_us
            if not future.done():
                future.set_result(reply)

    def _take_push(self, push: Reply) -> None:
        # Other kinds (maintenance notices) are none of the cache's business.
        if push[0] == b"invalidate":
            self._listener.keys_changed(self, ALL_KEYS if push[1] is None else push[1])

    def _lose(self, reason: str) -> None:
        if self._lost:
            return
        self._lost = True
        self.tracked = False
        if asyncio.current_task() is not self._reading:
            self._reading.cancel()
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001  # what `disconnect` does, without its wait
        error = LevelUnavailable("l2", reason)
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                # As a result: nobody may be left to look at an exception.
                future.set_result(error)
        self._listener.link_lost(self, reason)


class _Probe:
    """A listener that looks out for one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.heard = False
        self.lost_reason: str | None = None

    def keys_changed(self, link: Link, keys: list[bytes] | None) -> None:
        self.heard = self.heard or (keys is not None and self._key in keys)

    def link_lost(self, link: Link, reason: str) -> None:
        self.lost_reason = reason
