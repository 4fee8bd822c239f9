"""Small real deciders: they decode, decide by the first value, and encode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.transport.contract import Answer, Reply
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.decode import MalformedRequest, decode_request
from ratelimit_service.wire.rls.encode import encode_response
from ratelimit_service.wire.rls.messages import Descriptor, Request, Status, Verdict


def read_clock() -> Instant:
    """One reading of the machine's clocks."""
    return Instant(time.time_ns() // 1000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)


def request_for(value: bytes) -> Request:
    """A request with one descriptor (user, `value`)."""
    return Request(b"test", (Descriptor(((b"user", value),)),))


class ValueDecider:
    """Says OVER_LIMIT to the values that begin with `over`, crashes on `crash` and stalls on `slow`.

    `slow` holds the loop, and calls `while_stalled` meanwhile. `late` answers after a moment, `twice` answers twice,
    `never` is kept in `waiting`.
    """

    def __init__(self) -> None:
        self.waiting: list[Reply] = []
        self.is_waiting = asyncio.Event()
        self.calls: list[tuple[Instant, int]] = []
        self.while_stalled: Callable[[], object] = bool

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        self.calls.append((now, deadline_us))
        try:
            request = decode_request(body)
        except MalformedRequest as error:
            return GrpcError(GrpcCode.INVALID_ARGUMENT, str(error))
        value = request.descriptors[0].entries[0][1]
        answer = encode_response(Verdict(value.startswith(b"over"), (Status(value.startswith(b"over")),)))
        if value == b"never":
            self.waiting.append(reply)
            self.is_waiting.set()
            return None
        if value in (b"late", b"twice"):
            loop = asyncio.get_running_loop()
            loop.call_soon(reply, answer)
            loop.call_soon(reply, GrpcError(GrpcCode.INTERNAL, "the second answer") if value == b"twice" else answer)
            return None
        if value == b"late-error":
            asyncio.get_running_loop().call_soon(reply, GrpcError(GrpcCode.UNAVAILABLE, "no configuration"))
            return None
        if value == b"slow":
            self.while_stalled()
            time.sleep(0.2)  # a stalled loop, so that what was sent in the meantime, a reset too, is read at once
        if value == b"crash":
            raise RuntimeError("a planted bug")
        return answer
