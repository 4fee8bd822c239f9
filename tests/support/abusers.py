"""Clients that cost a server more than they pay, over real sockets: one of each kind that the wire has a budget for.

As a program it runs all of them at once, each again and again, and prints how its connections ended as JSON:

    python -m support.abusers PORT SECONDS PAUSE_S
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ratelimit_service.wire.http2.budgets import Abuse
from ratelimit_service.wire.http2.frames import ErrorCode
from ratelimit_service.wire.rls.client import encode_request
from support.deciders import request_for
from support.http2_frames import (
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    call,
    frame,
    headers,
    settings,
    word,
)

_LOADS_PER_WRITE = 200
_READ_BYTES = 1 << 16
_WAIT_S = 0.1
"""How long one system call waits."""


class Abuser(NamedTuple):
    """One kind.

    Attributes:
        name: What it does.
        abuse: What it is closed for.
        hello: Sent first, behind the preface.
        load: The n-th thing that it sends, n from 0; None: it sends no more and waits.
        reads: Whether it takes what the server writes.
        pause_s: Between two loads, which are then sent one by one.
    """

    name: str
    abuse: Abuse
    hello: bytes
    load: Callable[[int], bytes] | None = None
    reads: bool = True
    pause_s: float = 0


class Ending(NamedTuple):
    """How a connection ended.

    Attributes:
        code: Of the GOAWAY that came; None: there was none.
        closed: By the server; False: the time was over.
    """

    name: str
    code: ErrorCode | None
    closed: bool


_HEADER_BLOCK = block(*CALL)
_CANCEL = word(8)


def _reset(number: int) -> bytes:
    # As cheap as can be, for the budget is high.
    return frame(HEADERS, END_HEADERS, 2 * number + 1, _HEADER_BLOCK) + frame(RST_STREAM, 0, 2 * number + 1, _CANCEL)


def _continuation(_number: int) -> bytes:
    return frame(CONTINUATION, 0, 1)


def _bomb(number: int) -> bytes:
    # One entry of 4,000 bytes goes to the table and is then named by one byte a thousand times.
    first = b"\x40\x01a" + b"\x7f\xa1\x1e" + bytes(4_000)
    return frame(HEADERS, END_HEADERS, 2 * number + 1, first + 1_000 * b"\xbe")


_BODY = encode_request(request_for(b"x"))
_TRICKLE = call(1) * 100
# Windows that never stop an answer.
_WIDE = settings((4, 2**30)) + frame(WINDOW_UPDATE, 0, 0, word(2**30))

# So long that one read of the server brings fewer calls than may be open, and answered at more length than others.
_LONG_BLOCK = block(*CALL, (b"grpc-encoding", b"br"), *((b"x-long", b"y" * 120) for _ in range(4)))


def _long_call(number: int) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 2 * number + 1, b"\xff" + _LONG_BLOCK + bytes(255))


ABUSERS: Sequence[Abuser] = (
    Abuser("rapid reset", Abuse.RAPID_RESET, settings(), _reset),
    Abuser("CONTINUATION flood", Abuse.HEADER_BLOCK, settings() + headers(1, flags=0), _continuation),
    Abuser("SETTINGS flood", Abuse.SETTINGS, settings(), lambda _: frame(SETTINGS, 0, 0)),
    Abuser("PING flood", Abuse.PING, settings(), lambda _: frame(PING, 0, 0, bytes(8))),
    Abuser("empty DATA flood", Abuse.EMPTY_DATA, settings() + headers(1), lambda _: frame(DATA, 0, 1)),
    Abuser("PRIORITY flood", Abuse.PRIORITY, settings(), lambda n: frame(PRIORITY, 0, 2 * n + 1, word(0) + b"\0")),
    Abuser("WINDOW_UPDATE flood", Abuse.WINDOW_UPDATE, settings(), lambda _: frame(WINDOW_UPDATE, 0, 0, word(1))),
    Abuser("unknown frames", Abuse.UNKNOWN_FRAME, settings(), lambda _: frame(0x77, 0, 0)),
    Abuser("HPACK bomb", Abuse.HEADER_BLOCK, settings(), _bomb),
    Abuser("too many streams", Abuse.STREAMS, settings(), lambda n: headers(2 * n + 1)),
    Abuser("zero window", Abuse.STALLED, settings((4, 0)) + call(1, _BODY)),
    Abuser("stalled streams", Abuse.STALLED, settings() + b"".join(headers(2 * n + 1) for n in range(250))),
    Abuser("a byte at a time", Abuse.STALLED, settings(), lambda n: _TRICKLE[n : n + 1], pause_s=0.1),
    Abuser("never reads", Abuse.SLOW_READER, _WIDE, _long_call, reads=False),
)  # fmt: skip


def attack(port: int, abuser: Abuser, longest_s: float) -> Ending:
    """Abuse one connection until the server closes it, `longest_s` at the most."""
    deadline = time.monotonic() + longest_s
    received = bytearray()
    with socket.socket() as connection:
        connection.settimeout(_WAIT_S)
        if not abuser.reads:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", port))
        closed = not _send_all(connection, abuser, PREFACE + abuser.hello, received, deadline)
        number = 0
        while not closed and time.monotonic() < deadline:
            if abuser.load is None:
                closed = not _take(connection, received, wait_s=_WAIT_S)
                continue
            count = 1 if abuser.pause_s else _LOADS_PER_WRITE
            data = b"".join(abuser.load(each) for each in range(number, number + count))
            number += count
            closed = not _send_all(connection, abuser, data, received, deadline)
            if abuser.pause_s:
                time.sleep(abuser.pause_s)
        # What was written before the end is still there to read.
        while closed and _take(connection, received, wait_s=0):
            pass
    return Ending(abuser.name, goaway_code(bytes(received)), closed)


def _send_all(connection: socket.socket, abuser: Abuser, data: bytes, received: bytearray, deadline: float) -> bool:
    """Send, and read meanwhile what the server says, if that is its kind; False: the server closed."""
    left = memoryview(data)
    while left and time.monotonic() < deadline:
        try:
            left = left[connection.send(left) :]
        except TimeoutError:
            pass
        except OSError:
            return False
        if abuser.reads and not _take(connection, received, wait_s=0):
            return False
    return True


def _take(connection: socket.socket, received: bytearray, *, wait_s: float) -> bool:
    """Read what is there; False: the server closed."""
    if not select.select([connection], [], [], wait_s)[0]:
        return True
    try:
        data = connection.recv(_READ_BYTES)
    except OSError:
        return False
    received += data
    return bool(data)


def goaway_code(received: bytes) -> ErrorCode | None:
    """The error code of the last GOAWAY in what a server wrote; a frame that was cut off is passed over."""
    at, code = 0, None
    while at + 9 <= len(received):
        payload = received[at + 9 : at + 9 + int.from_bytes(received[at : at + 3], "big")]
        if received[at + 3] == GOAWAY and len(payload) >= 8:
            code = ErrorCode(int.from_bytes(payload[4:8], "big"))
        at += 9 + int.from_bytes(received[at : at + 3], "big")
    return code


def attack_again_and_again(port: int, seconds: float, pause_s: float) -> list[Ending]:
    """One of each kind at once, each with a new connection `pause_s` after its last one ended."""
    deadline = time.monotonic() + seconds
    endings: list[Ending] = []

    def abuse(abuser: Abuser) -> None:
        while (left_s := deadline - time.monotonic()) > 0:
            endings.append(attack(port, abuser, left_s))
            time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))

    threads = [threading.Thread(target=abuse, args=(abuser,)) for abuser in ABUSERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return endings


def main() -> None:
    port, seconds, pause_s = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    endings = attack_again_and_again(port, seconds, pause_s)
    connections = Counter(ending.name for ending in endings)
    calmed = Counter(ending.name for ending in endings if ending.code is ErrorCode.ENHANCE_YOUR_CALM)
    closed = Counter(ending.name for ending in endings if ending.closed)
    print(
        json.dumps(
            [
                {"name": name, "connections": count, "closed": closed[name], "enhance_your_calm": calmed[name]}
                for name, count in connections.items()
            ]
        )
    )


if __name__ == "__main__":
    main()
