"""Health and metrics over HTTP/1.1: a few small pages, read by probes and Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from ratelimit_service.addresses import Address

_MAX_HEAD_BYTES: Final = 8 * 1024
_TIMEOUT_S: Final = 5.0


class Page(msgspec.Struct, frozen=True):
    """One answer.

    Attributes:
        status: Such as `200 OK`.
        body: Text.
        content_type: Of the body.
    """

    status: str
    body: str
    content_type: str = "text/plain; charset=utf-8"


class AdminServer:
    """Serves pages that are made when they are asked for.

    Args:
        address: Where; port 0: any free one.
        pages: By path.
    """

    def __init__(self, address: Address, pages: Mapping[str, Callable[[], Page]]) -> None:
        self._address = address
        self._pages = pages
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self) -> None:
        """Bind the address.

        Raises:
            OSError: It cannot be bound.
        """
        self._server = await asyncio.start_server(
            self._serve, self._address.host, self._address.port, limit=_MAX_HEAD_BYTES
        )
        port = self._server.sockets[0].getsockname()[1]
        self.address = str(Address(self._address.host, port))

    async def stop(self) -> None:
        """End; what is being answered is cut off."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _TIMEOUT_S)
            writer.write(_encode(self._answer(head)))
            await asyncio.wait_for(writer.drain(), _TIMEOUT_S)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # a client that is slow, gone or talkative gets no answer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> Page:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode(errors="replace")
        page = self._pages.get(path)
        if page is None:
            return Page("404 Not Found", f"known pages: {', '.join(self._pages)}\n")
        if method not in (b"GET", b"HEAD"):
            return Page("405 Method Not Allowed", "GET\n")
        answer = page()
        return answer if method == b"GET" else msgspec.structs.replace(answer, body="")


def _encode(page: Page) -> bytes:
    body = page.body.encode()
    head = (
        f"HTTP/1.1 {page.status}\r\ncontent-type: {page.content_type}\r\ncontent-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
