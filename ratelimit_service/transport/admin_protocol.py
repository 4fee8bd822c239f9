"""One connection of the admin server: HTTP/1.1 by h11 under an asyncio protocol.

A connection waits (for a request's first byte), reads (headers, then the body), answers, and waits again.
Each of these has a deadline, so that a client that is slow, in either direction, costs one bounded buffer for a
bounded time. While it answers it reads nothing: pipelined requests wait in the socket.
What a client gets wrong is answered where HTTP still allows that, and then the connection lingers: it is closed for
writing and what still arrives is thrown away, because a plain close would reset it before the answer is read.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Generic, cast

import h11
import msgspec
import structlog

from ratelimit_service.transport.admin_routes import Page, Query, Routes, View, is_local_peer, refusal, split_target

_log = structlog.get_logger(__name__)


class AdminLimits(msgspec.Struct, frozen=True):
    """What one client may cost.

    Attributes:
        max_connections: Open at once; one more closes the one that has been idle longest, or is answered 503.
        max_header_bytes: Request line and headers together (→ 431).
        max_body_bytes: Body (→ 413).
        idle_s: Between requests.
        header_s: From a request's first byte to the end of its headers (→ 408).
        body_s: From there to the end of the body (→ 408).
        answer_s: For the client to read what the socket's buffer does not hold; after it the connection is cut.
        linger_s: For the client to read a last answer.
    """

    max_connections: int = 256
    max_header_bytes: int = 16_384
    max_body_bytes: int = 1_048_576
    idle_s: float = 60.0
    header_s: float = 10.0
    body_s: float = 10.0
    answer_s: float = 30.0
    linger_s: float = 1.0


class Phase(enum.Enum):
    """What a connection is doing, and so which deadline runs."""

    IDLE = "idle"
    HEADERS = "headers"
    BODY = "body"
    ANSWER = "answer"
    LINGER = "linger"
    CLOSING = "closing"


class AdminConnection(asyncio.Protocol, Generic[View]):
    """Serves one client.

    Attributes:
        phase: What it is doing.
    """

    def __init__(
        self,
        routes: Routes[View],
        view: View,
        limits: AdminLimits,
        opened: Callable[[AdminConnection[View]], bool],
        closed: Callable[[AdminConnection[View]], None],
    ) -> None:
        self.phase = Phase.IDLE
        self._routes = routes
        self._view = view
        self._limits = limits
        self._opened = opened
        self._closed = closed
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_header_bytes)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._answering: asyncio.Task[None] | None = None
        self._draining = False
        self._request: h11.Request | None = None
        self._body = bytearray()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, or refuse the client."""
        # A cast, because uvloop's transports are no subclasses.
        self._transport = cast(asyncio.Transport, transport)
        if self._opened(self):
            self._enter(Phase.IDLE)
        else:
            self._finish(refusal(503, "too many connections"))

    def data_received(self, data: bytes) -> None:
        """Feed h11, unless nothing more is wanted."""
        if self.phase in (Phase.LINGER, Phase.CLOSING):
            return
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEADERS)
        self._http.receive_data(data)
        self._read()

    def eof_received(self) -> bool:
        """A half-closed client still gets its answer; else the connection ends once its buffer is sent."""
        if self.phase is Phase.ANSWER:
            return True
        self._enter(Phase.CLOSING)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client and stop answering it."""
        self.phase = Phase.CLOSING
        self._set_timer(None)
        if self._answering is not None:
            self._answering.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        """The client reads too slowly: make no more slices."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()

    # What the server calls.

    def cut(self) -> None:
        """Close now; an answer under way is lost."""
        self._transport.abort()

    def drain(self) -> None:
        """Close as soon as no answer is under way."""
        self._draining = True
        if self.phase is Phase.IDLE:
            self._hang_up()

    # Reading.

    def _read(self) -> None:
        """Take h11's events until it needs more bytes or an answer has begun."""
        try:
            while self.phase in (Phase.IDLE, Phase.HEADERS, Phase.BODY):
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                self._refuse_head()
            else:
                self._finish(refusal(400, "this is no HTTP/1.1 request"))

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            if event.http_version not in (b"1.0", b"1.1"):  # h11 takes any digits
                self._finish(refusal(505, "this server speaks HTTP/1.1 only"))
                return
            self._request = event
            # h11 counts only heads that come in pieces.
            if _head_bytes(event) > self._limits.max_header_bytes:
                self._refuse_head()
                return
            self._body.clear()
            self._enter(Phase.BODY)
            self._begin_body(event)
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._limits.max_body_bytes:
                self._refuse_body()
        else:
            assert isinstance(event, h11.EndOfMessage)  # h11 is never told of an end of file, so no ConnectionClosed
            assert self._request is not None
            self._enter(Phase.ANSWER)
            self._transport.pause_reading()
            self._answering = self._loop.create_task(self._answer(self._request, bytes(self._body)))

    def _begin_body(self, request: h11.Request) -> None:
        """Refuse what is announced too large before it is sent; tell a client that asks to go on."""
        length = next((value for name, value in request.headers if name == b"content-length"), b"0")
        if int(length) > self._limits.max_body_bytes:
            self._refuse_body()
        elif self._http.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    def _refuse_head(self) -> None:
        self._finish(refusal(431, f"the headers are larger than {self._limits.max_header_bytes} bytes"))

    def _refuse_body(self) -> None:
        self._finish(refusal(413, f"the body is larger than {self._limits.max_body_bytes} bytes"))

    # Answering.

    async def _answer(self, request: h11.Request, body: bytes) -> None:
        """Send one page, then go back to reading or close."""
        try:
            page = await self._page(request, body)
            self._send(self._head(page))
            if request.method != b"HEAD":
                await self._send_body(page.body)
            self._send(h11.EndOfMessage())
            await self._until_writable()
        except Exception:  # noqa: BLE001 — a bug in one page ends that page, not the service
            _log.exception("admin_page_failed", target=request.target.decode("ascii").partition("?")[0])
            self._fail()
            return
        if self._http.our_state is h11.MUST_CLOSE:
            self._linger()
        elif self._draining:
            self._hang_up()
        else:
            self._next()

    async def _page(self, request: h11.Request, body: bytes) -> Page:
        method = request.method.decode("ascii")
        path, fields = split_target(request.target.decode("ascii"))
        is_local = is_local_peer(self._transport.get_extra_info("peername"), list(request.headers))
        found = self._routes.find(method, path, is_local=is_local)
        if isinstance(found, Page):
            return found
        return await found.handler(self._view, Query("GET" if method == "HEAD" else method, fields, body))

    def _fail(self) -> None:
        """Say so if nothing has been sent yet; else cut, so that half an answer does not look whole."""
        if self._http.our_state is h11.SEND_RESPONSE:
            self._finish(refusal(500, "internal error; the log has it"))
        else:
            self.cut()

    def _next(self) -> None:
        """Wait for the next request, which a pipelining client may have sent already."""
        self._http.start_next_cycle()
        self._request = None
        self._enter(Phase.HEADERS if self._http.trailing_data[0] else Phase.IDLE)
        self._transport.resume_reading()
        self._read()

    async def _send_body(self, body: bytes | Iterator[bytes]) -> None:
        if isinstance(body, bytes):
            self._send(h11.Data(data=body))
        else:
            await self._send_slices(body)

    async def _send_slices(self, slices: Iterator[bytes]) -> None:
        """Send each slice as a chunk, with a turn of the loop after it and never ahead of a slow client."""
        for piece in slices:
            if piece:
                self._send(h11.Data(data=piece))
            await asyncio.sleep(0)
            await self._until_writable()

    async def _until_writable(self) -> None:
        if not self._writable.is_set():
            self._enter(Phase.ANSWER)  # the time to read counts anew for each full buffer
            await self._writable.wait()

    def _head(self, page: Page) -> h11.Response:
        headers = [
            ("Content-Type", page.content_type),
            ("Date", formatdate(usegmt=True)),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if isinstance(page.body, bytes):
            headers.append(("Content-Length", str(len(page.body))))
        else:
            headers.append(("Transfer-Encoding", "chunked"))
        if page.allow:
            headers.append(("Allow", page.allow))
        if self._draining or self._http.their_state not in (h11.DONE, h11.MUST_CLOSE):
            headers.append(("Connection", "close"))
        return h11.Response(status_code=page.status, headers=headers, reason=HTTPStatus(page.status).phrase.encode())

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._transport.write(data)

    # Ending.

    def _finish(self, page: Page) -> None:
        """Answer without having read the whole request, then close."""
        assert isinstance(page.body, bytes)
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(self._head(page))
            if self._request is None or self._request.method != b"HEAD":
                self._send(h11.Data(data=page.body))
            self._send(h11.EndOfMessage())
        self._linger()

    def _linger(self) -> None:
        self._enter(Phase.LINGER)
        self._transport.write_eof()
        self._transport.resume_reading()

    def _hang_up(self) -> None:
        """Close once the buffer is sent; a client that does not read it is cut."""
        self._enter(Phase.CLOSING)
        self._transport.close()

    # Deadlines.

    def _enter(self, phase: Phase) -> None:
        """Begin a phase, and its time."""
        limits = self._limits
        seconds = {
            Phase.IDLE: limits.idle_s,
            Phase.HEADERS: limits.header_s,
            Phase.BODY: limits.body_s,
            Phase.ANSWER: limits.answer_s,
            Phase.LINGER: limits.linger_s,
            Phase.CLOSING: limits.answer_s,
        }
        self.phase = phase
        self._set_timer(seconds[phase])

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        if self.phase is Phase.HEADERS:
            self._finish(refusal(408, f"the headers took longer than {self._limits.header_s:g} s"))
        elif self.phase is Phase.BODY:
            self._finish(refusal(408, f"the body took longer than {self._limits.body_s:g} s"))
        elif self.phase in (Phase.ANSWER, Phase.CLOSING):
            self.cut()
        else:
            self._hang_up()


def _head_bytes(request: h11.Request) -> int:
    """Length of a request's line and headers, without the spaces that its sender added."""
    line = len(request.method) + len(request.target) + len(" ") + len(" HTTP/1.1\r\n")
    return line + sum(len(name) + len(": ") + len(value) + len("\r\n") for name, value in request.headers)
