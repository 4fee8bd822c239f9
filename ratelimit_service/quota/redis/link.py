"""One connection to a Redis server: pipelines in, replies out, and no second chance.

The library's own reading and writing of commands takes 20 µs a command, so only its connecting is used (`Dialer`);
from there on hiredis packs and parses, and the transport's callbacks carry bytes without a task or a stream between.
A round trip ends by its deadline, and a connection that missed it is dropped with whatever was still to be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import hiredis

from ratelimit_service.quota.redis.faults import (
    LossReason,
    ScriptError,
    StoreLost,
    loss_of_connection,
    loss_of_reply,
    script_error,
)
from ratelimit_service.redis_server.address_model import Endpoint

__all__ = ["Argument", "Heard", "Link", "Reply"]

Argument: TypeAlias = bytes | str | int
"""One word of a command."""

Reply: TypeAlias = "bytes | int | ScriptError | list[Reply] | None"
"""What RESP2 carries; an error among other replies is a value."""

Heard: TypeAlias = "Callable[[list[Reply] | StoreLost], None]"
"""Takes the replies of a pipeline, or why there are none."""

_CLOSE_SECONDS: Final = 1.0
_CLOSED: Final = "the server has closed the connection"


class Link(asyncio.Protocol):
    """A connection that is up and logged in. Not for two round trips at once."""

    def __init__(self, endpoint: Endpoint, writer: asyncio.StreamWriter) -> None:
        """Take over a connection whose every reply so far has been read."""
        self.endpoint = endpoint
        # A writer that nobody keeps closes its transport.
        self._writer = writer
        self._transport = writer.transport
        self._loop = asyncio.get_running_loop()
        # Any callable will do for an error, whatever it returns becomes the reply.
        self._parser = hiredis.Reader(replyError=script_error)  # type: ignore[arg-type]
        self._heard: Heard | None = None
        self._replies: list[Reply] = []
        self._expected = 0
        self._timer: asyncio.TimerHandle | None = None
        self._messages: deque[Reply] = deque()
        self._reader: asyncio.Future[Reply] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._transport.set_protocol(self)

    @property
    def is_up(self) -> bool:
        """Whether neither side has closed it, as far as this side has heard."""
        return not (self._transport.is_closing() or self._ended.done())

    # Round trips.

    def begin(self, commands: Sequence[tuple[Argument, ...]], timeout_us: int, heard: Heard) -> None:
        """Send commands, at least one, as one pipeline; `heard` is told all their replies, not before this returns.

        Errors of single commands are among the replies. `StoreLost` is told instead where the connection broke or
        timed out (it is dropped), and where an error says that the server does not work: everything has been read then,
        so that the connection stays good.
        """
        self._heard, self._replies, self._expected = heard, [], len(commands)
        if not self.is_up or self._messages:
            # A reply that nobody asked for: who knows to what the next one belongs.
            self._loop.call_soon(self._break, ConnectionResetError(_CLOSED))
            return
        self._timer = self._loop.call_later(max(0, timeout_us) / 1_000_000, self._break, TimeoutError())
        # Its stub says a tuple of one word.
        self._transport.write(b"".join(map(hiredis.pack_command, commands)))  # type: ignore[arg-type]

    async def exchange(self, commands: Sequence[tuple[Argument, ...]], timeout_us: int) -> list[Reply]:
        """As `begin`, waiting for the replies.

        Raises:
            StoreLost: The connection broke or timed out (it is dropped), or the server refuses.
        """
        replies: asyncio.Future[list[Reply]] = self._loop.create_future()
        self.begin(commands, timeout_us, functools.partial(_resolve, replies))
        try:
            return await replies
        except asyncio.CancelledError:
            # Between a command and its reply: nobody may read that reply.
            self.drop()
            raise

    async def next_message(self) -> Reply:
        """Wait for what the server sends by itself (a subscription).

        Raises:
            StoreLost: The connection broke; it is dropped.
        """
        if self._messages:
            return self._messages.popleft()
        if not self.is_up:
            raise loss_of_connection(ConnectionResetError(_CLOSED))
        self._reader = self._loop.create_future()
        try:
            return await self._reader
        finally:
            self._reader = None

    def drop(self) -> None:
        """Close without waiting, and without a last word to a peer that may never read it."""
        self._transport.abort()

    async def close(self) -> None:
        """Close and wait until it is, a second at the most."""
        self._transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.shield(self._ended)

    # asyncio's callbacks.

    def data_received(self, data: bytes) -> None:
        """Hand out what is complete."""
        parser = self._parser
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                self._take(reply)
        except hiredis.HiredisError as error:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if not self._ended.done():
            self._ended.set_result(None)
        self._tell(loss_of_connection(exc or ConnectionResetError(_CLOSED)))

    def _take(self, reply: Reply) -> None:
        if self._heard is None:
            if self._reader is not None and not self._reader.done():
                self._reader.set_result(reply)
            else:
                self._messages.append(reply)
            return
        replies = self._replies
        replies.append(reply)
        if len(replies) == self._expected:
            self._tell(_refusal_among(replies) or replies)

    def _break(self, error: Exception) -> None:
        self.drop()
        self._tell(loss_of_connection(error))

    def _tell(self, answer: list[Reply] | StoreLost) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        heard, self._heard = self._heard, None
        if heard is not None:
            heard(answer)
        elif isinstance(answer, StoreLost) and self._reader is not None and not self._reader.done():
            self._reader.set_exception(answer)


def _refusal_among(replies: Sequence[Reply]) -> StoreLost | None:
    """What an error among replies says of the server as a whole."""
    for reply in replies:
        if isinstance(reply, ScriptError):
            reason = loss_of_reply(reply)
            if reason is not None and reason is not LossReason.MOVING:
                return StoreLost(reason, reply.message)
    return None


def _resolve(future: asyncio.Future[list[Reply]], answer: list[Reply] | StoreLost) -> None:
    if future.done():
        return
    if isinstance(answer, StoreLost):
        future.set_exception(answer)
    else:
        future.set_result(answer)
