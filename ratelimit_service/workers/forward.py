"""Asks a worker's admin pages over its Unix socket, for the parent's."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import quote, urlencode

import h11

from ratelimit_service.transport.admin_routes import Page, Query, refusal

_READ_BYTES: Final = 65_536
_TEXT: Final = "text/plain; charset=utf-8"


class WorkerSilentError(Exception):
    """The worker did not answer in time, or is gone."""


async def ask_worker(socket_path: str, target: str, query: Query, timeout_s: float) -> Page:
    """What a worker's page answers to a request.

    Raises:
        WorkerSilentError: Nothing, or no HTTP.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                return await _exchange(reader, writer, target, query)
            finally:
                writer.close()
    except (OSError, TimeoutError, h11.ProtocolError) as error:
        raise WorkerSilentError(str(error) or type(error).__name__) from error


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, query: Query) -> Page:
    http = h11.Connection(h11.CLIENT)
    fields = urlencode(query.fields, quote_via=quote)
    headers = [("Host", "worker"), ("Connection", "close"), ("Content-Length", str(len(query.body)))]
    request = h11.Request(method=query.method, target=f"{target}?{fields}" if fields else target, headers=headers)
    for sent in (request, h11.Data(data=query.body), h11.EndOfMessage()):
        writer.write(http.send(sent) or b"")
    head: h11.Response | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        elif isinstance(event, h11.ConnectionClosed):
            raise WorkerSilentError("it closed the connection")
    if head is None:
        raise WorkerSilentError("it sent no answer")
    content_type = dict(head.headers).get(b"content-type", _TEXT.encode()).decode()
    return Page(head.status_code, bytes(body), content_type)


def silence(problem: str) -> Page:
    """503 where no worker can be asked."""
    return refusal(503, problem)
