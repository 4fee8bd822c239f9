"""One connection to a Redis server: pipelines in, replies out, and no second chance.

The library's own reading and writing of commands takes 20 µs a command, so only its connecting is used (`Dialer`);
from there on hiredis packs and parses. A round trip ends by its deadline, and a connection that missed it is dropped
with whatever was still to be read from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
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

__all__ = ["Argument", "Link", "Reply"]

Argument: TypeAlias = bytes | str | int
"""One word of a command."""

Reply: TypeAlias = "bytes | int | ScriptError | list[Reply] | None"
"""What RESP2 carries; an error among other replies is a value."""

_CHUNK_BYTES: Final = 65_536
_CLOSE_SECONDS: Final = 1.0


class Link:
    """A connection that is up and logged in. Not for two round trips at once."""

    __slots__ = ("_parser", "_reader", "_writer", "endpoint")

    def __init__(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.endpoint = endpoint
        self._reader = reader
        self._writer = writer
        # Any callable will do for an error, whatever it returns becomes the reply.
        self._parser = hiredis.Reader(replyError=script_error)  # type: ignore[arg-type]

    @property
    def is_up(self) -> bool:
        """Whether neither side has closed it, as far as this side has heard."""
        return not (self._writer.is_closing() or self._reader.at_eof())

    async def exchange(self, commands: Sequence[tuple[Argument, ...]], timeout_us: int) -> list[Reply]:
        """Send commands as one pipeline and read all their replies.

        Errors of single commands are among the replies; those that say that the server does not work are raised, after
        everything has been read, so that the connection stays good.

        Raises:
            StoreLost: The connection broke or timed out (it is dropped), or the server refuses.
        """
        try:
            async with asyncio.timeout(timeout_us / 1_000_000):
                # Its stub says a tuple of one word.
                self._writer.write(b"".join(map(hiredis.pack_command, commands)))  # type: ignore[arg-type]
                await self._writer.drain()
                replies = [await self._next() for _ in commands]
        except (hiredis.HiredisError, OSError) as error:  # asyncio's TimeoutError is an OSError
            self.drop()
            raise loss_of_connection(error) from error
        except BaseException:
            # Cancelled between a command and its reply: nobody may read that reply.
            self.drop()
            raise
        for reply in replies:
            if isinstance(reply, ScriptError):
                reason = loss_of_reply(reply)
                if reason is not None and reason is not LossReason.MOVING:
                    raise StoreLost(reason, reply.message)
        return replies

    async def next_message(self) -> Reply:
        """Wait for what the server sends by itself (a subscription).

        Raises:
            StoreLost: The connection broke; it is dropped.
        """
        try:
            return await self._next()
        except (hiredis.HiredisError, OSError) as error:
            self.drop()
            raise loss_of_connection(error) from error

    def drop(self) -> None:
        """Close without waiting, and without a last word to a peer that may never read it."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close and wait until it is, a second at the most."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                self._writer.close()
                await self._writer.wait_closed()

    async def _next(self) -> Reply:
        while (reply := self._parser.gets()) is False:
            chunk = await self._reader.read(_CHUNK_BYTES)
            if not chunk:
                raise ConnectionResetError("the server has closed the connection")
            self._parser.feed(chunk)
        answer: Reply = reply
        return answer
