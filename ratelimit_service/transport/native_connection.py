"""One client of the native transport: asyncio's protocol around the sans-IO connection.

What one read brings is worked through with one reading of the clock and answered with one write. Answers that
come later are gathered by the hub and written together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, cast

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.transport import native_calls
from ratelimit_service.transport.contract import Answer
from ratelimit_service.transport.native_calls import OK_FORM, Method, Route, find_route, write_answer, write_refusal
from ratelimit_service.transport.native_hub import Hub
from ratelimit_service.transport.native_tls import ServerTls, speaks_http2
from ratelimit_service.transport.native_turns import FIRST_BYTES, next_read_bytes
from ratelimit_service.wire.grpc.calls import (
    OK_TRAILERS,
    PREFIX_BYTES,
    RESPONSE_HEAD,
    Refusal,
    frame_message,
    read_message,
    read_prefix,
)
from ratelimit_service.wire.grpc.health import encode_health_response
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.http2.budgets import Abuse
from ratelimit_service.wire.http2.connection import Connection
from ratelimit_service.wire.http2.events import Cancelled, Event, Request
from ratelimit_service.wire.http2.faults import Flood

_LOG: Final = logging.getLogger(__name__)
_NS_PER_US: Final = 1_000
_read_ns: Final = time.perf_counter_ns


class _LateReply:
    """Where the answer of one waiting call arrives. The first answer counts; a call that ended takes none."""

    __slots__ = ("_began_ns", "_connection", "stream")

    def __init__(self, connection: NativeConnection) -> None:
        self._connection: NativeConnection | None = connection
        self.stream = 0
        self._began_ns = 0

    def wait(self, began_ns: int) -> None:
        self._began_ns = began_ns

    def __call__(self, answer: Answer) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.reply(self.stream, answer, self._began_ns)


class NativeConnection(asyncio.BufferedProtocol):
    """Serves one client. Times are boot times in microseconds.

    Args:
        hub: What all connections share.
        tls: Under which it came, None: plain text.
    """

    def __init__(self, hub: Hub, tls: ServerTls | None) -> None:
        self._hub = hub
        self._tls = tls
        self._wire = Connection(hub.wire_limits)
        self._transport: asyncio.Transport | None = None
        self._spare = _LateReply(self)
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._refusal: Refusal | None = None
        self._buffer = hub.buffer[:FIRST_BYTES]
        self.held_bytes = 0
        self._opened_us = self._expires_us = self._active_us = 0
        self._streams_then = 0
        self._left_us = self._blocked_us = self._closed_us = 0

    @property
    def streams_seen(self) -> int:
        """Calls begun so far."""
        return self._wire.streams_seen

    # ── asyncio's callbacks ──────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._hub.admit(self):
            self._transport.abort()
            return
        if self._tls is not None:
            secured = transport.get_extra_info("ssl_object")
            if not speaks_http2(secured):
                self._hub.count_refused()
                self._transport.abort()
                return
            self._refusal = None if self._tls.admits(secured) else native_calls.NOT_ADMITTED
        now_us = self._hub.clock().boot_us
        self._opened_us = self._active_us = now_us
        self._expires_us = self._hub.expiry_us(now_us)
        if self._hub.draining:
            self.leave(now_us)
        self.flush()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next read goes: one buffer for all connections, since each read is worked through at once."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Work through one read. Who fills the whole buffer has more to say, and waits for its turn."""
        buffer = self._buffer
        if nbytes < len(buffer):
            self.data_received(bytes(buffer[:nbytes]))
            return
        began_ns = _read_ns()
        self.data_received(bytes(buffer))
        spent_us = (_read_ns() - began_ns) // _NS_PER_US
        self._buffer = self._hub.buffer[: next_read_bytes(nbytes, spent_us)]
        transport = self._transport
        if transport is not None and not self._blocked_us and not transport.is_closing():
            transport.pause_reading()
            self._hub.turns.wait(self, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._blocked_us and not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Work through what one read brought."""
        now = self._hub.clock()
        wire = self._wire
        events = wire.receive(data, now.boot_us)
        if events:
            self._work(events, now)
        self.flush()
        held_bytes = wire.held_bytes if wire.is_holding else 0
        if held_bytes != self.held_bytes:
            change_bytes, self.held_bytes = held_bytes - self.held_bytes, held_bytes
            self._hub.hold(change_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._transport = None
        for watch in self._watches.values():
            watch.cancel()
        self._hub.hold(-self.held_bytes)
        self._hub.dismiss(self, self._wire.streams_seen)

    def pause_writing(self) -> None:
        """The client does not read: what it asks now would only pile up."""
        self._blocked_us = self._hub.clock().boot_us
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked_us = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self, events: list[Event], now: Instant) -> None:
        """Answer what can be answered now; `now` serves the whole batch."""
        hub, wire, reply = self._hub, self._wire, self._spare
        decide, answer_with, boot_us, refusal = hub.decide, wire.answer, now.boot_us, self._refusal
        most_bytes = hub.settings.max_message_bytes
        began_ns = _read_ns()
        decided = 0
        for event in events:
            if event.__class__ is not Request:
                self._work_aside(event)
                continue
            stream, head, body = event.stream, event.head, event.body
            route = head.call
            if route is None:
                route = head.call = find_route(head, hub.settings.longest_answer_us)
            if route.__class__ is not Route or refusal is not None:
                write_refusal(wire, stream, refusal or cast("Refusal", route))
                continue
            size = len(body) - PREFIX_BYTES
            if route.decides and 0 <= size <= most_bytes and read_prefix(body) == (0, size):
                message = body[PREFIX_BYTES:]
            else:
                unusual = self._read(event, route)
                if unusual is None:
                    continue
                message = unusual
            reply.stream = stream
            if route.timeout_ns and _read_ns() - began_ns > route.timeout_ns:
                # The calls before it in this read took so long that its caller has gone.
                write_refusal(wire, stream, native_calls.TOO_LATE)
                continue
            try:
                answer = decide(message, now, boot_us + route.allowance_us, reply)
            except Exception:  # noqa: BLE001 — a bug in a decision ends that call alone; its words stay in the log
                _LOG.exception("a decision failed")
                reply = self._spare = _LateReply(self)
                write_refusal(wire, stream, native_calls.INTERNAL)
                continue
            if answer.__class__ is bytes:
                decided += 1
                answer_with(stream, OK_FORM, answer)
            elif answer is None:
                reply.wait(began_ns)
                reply = self._spare = _LateReply(self)
            else:
                decided += 1
                write_answer(wire, stream, answer)
        if decided and hub.durations is not None:
            hub.durations.observe((_read_ns() - began_ns) // _NS_PER_US, decided)

    def _read(self, request: Request, route: Route) -> bytes | None:
        """The message to decide about; None: the call is of the health service, or cannot be read, and was answered."""
        most_bytes = self._hub.settings.max_message_bytes
        message = read_message(request.body, compressed=route.gzip, most_bytes=most_bytes)
        if isinstance(message, GrpcError):
            write_answer(self._wire, request.stream, message)
        elif route.decides:
            return message
        elif route.method is Method.CHECK:
            write_answer(self._wire, request.stream, native_calls.check_health(self._hub.health, message))
        else:
            self._watch(request.stream, message)
        return None

    def _work_aside(self, event: Event) -> None:
        if isinstance(event, Cancelled):
            watch = self._watches.get(event.stream)
            if watch is not None:
                watch.cancel()
        else:
            text = f"a message of more than the {self._hub.settings.max_message_bytes} bytes allowed"
            write_answer(self._wire, event.stream, GrpcError(GrpcCode.RESOURCE_EXHAUSTED, text))

    def reply(self, stream: int, answer: Answer, began_ns: int) -> None:
        """Answer a call that waited; one that has ended is passed over."""
        if self._transport is None:
            return
        if self._hub.durations is not None:
            self._hub.durations.observe((_read_ns() - began_ns) // _NS_PER_US)
        write_answer(self._wire, stream, answer)
        self._hub.flush_soon(self)

    def _watch(self, stream: int, message: bytes) -> None:
        service = native_calls.watched_service(message)
        if isinstance(service, GrpcError):
            write_answer(self._wire, stream, service)
        elif len(self._watches) >= self._hub.settings.max_watches:
            write_refusal(self._wire, stream, native_calls.TOO_MANY_WATCHES)
        else:
            self._wire.begin(stream, RESPONSE_HEAD)
            task = asyncio.get_running_loop().create_task(self._follow(stream, service))
            self._watches[stream] = task
            task.add_done_callback(lambda _task: self._watches.pop(stream, None))

    async def _follow(self, stream: int, service: bytes) -> None:
        async for status in self._hub.health.follow(service):
            self._wire.send(stream, frame_message(encode_health_response(status)))
            self.flush()
        self._wire.send(stream, b"", OK_TRAILERS)
        self.flush()

    # ── output and ends ──────────────────────────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Write what there is to say, and close when nothing is left to do."""
        transport, wire = self._transport, self._wire
        if transport is None or self._closed_us:
            return
        out = wire.output()
        if out:
            transport.write(out)
        if wire.done:
            if isinstance(wire.fault, Flood):
                self._hub.count_abuse(wire.fault.abuse)
            self._closed_us = self._hub.clock().boot_us
            transport.close()

    def abandon(self, abuse: Abuse) -> None:
        """Close for `abuse`, and say so."""
        self._wire.abandon(abuse)
        self.flush()

    def abort(self) -> None:
        """Close without a word."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self, now_us: int) -> None:
        """Ask the client to leave: the calls under way end well, new ones go elsewhere."""
        if not self._left_us:
            self._left_us = now_us
            self._wire.announce_end()
            self.flush()

    def look_after(self, now_us: int) -> None:
        """Notice what only time shows; called by the hub's timer."""
        settings, wire = self._hub.settings, self._wire
        if self._closed_us:
            if now_us - self._closed_us > settings.stall_us:
                self.abort()
        elif self._blocked_us and now_us - self._blocked_us > settings.stall_us:
            self._hub.count_abuse(Abuse.SLOW_READER)
            self.abort()
        elif (not wire.settled and now_us - self._opened_us > settings.settle_us) or wire.overdue(
            now_us - settings.stall_us, now_us
        ):
            self.abandon(Abuse.STALLED)
        elif self._left_us:
            self._hasten(now_us)
        elif self._expires_us:
            if now_us > self._expires_us:
                self.leave(now_us)
        else:
            self._leave_when_idle(now_us)

    def _hasten(self, now_us: int) -> None:
        if now_us - self._left_us > self._hub.settings.leave_grace_us and not self._hub.draining:
            self.abort()
        elif now_us - self._left_us > self._hub.settings.heed_us:
            self._wire.refuse_new()
            self.flush()

    def _leave_when_idle(self, now_us: int) -> None:
        seen = self._wire.streams_seen
        if seen != self._streams_then or self._wire.open_streams:
            self._streams_then, self._active_us = seen, now_us
        elif now_us - self._active_us > self._hub.settings.max_idle_us:
            self.leave(now_us)
