"""One client of the native transport, without a socket and with time as an argument."""

from __future__ import annotations

import asyncio
import gzip

import hpack
import pytest

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.transport.contract import Answer, Reply
from ratelimit_service.transport.native_connection import NativeConnection
from ratelimit_service.transport.native_hub import Hub
from ratelimit_service.transport.native_settings import NativeSettings
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.http2.frames import ErrorCode
from support.http2_frames import (
    CALL,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    Frame,
    call,
    frame,
    headers,
    message,
    parse,
    settings,
    word,
)
from support.sockets import HandClock, RecordingSocket
from support.transports import CHECK, WATCH, on_loop

SECOND_US = 1_000_000
HELLO = PREFACE + settings()


class Echo:
    """Answers with the body; `late…` later, `error` as an error, `crash` not at all, `both` twice."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.deadlines_us: list[int] = []

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        self.deadlines_us.append(deadline_us - now.boot_us)
        if body.startswith((b"late", b"crash")):
            self.replies.append(reply)
        if body.startswith(b"crash"):
            raise RuntimeError("secret words")
        if body == b"error":
            return GrpcError(GrpcCode.UNAVAILABLE, "not now")
        return None if body.startswith(b"late") else body


class Served:
    """A hub, its clock, and connections that are past their SETTINGS."""

    def __init__(self, **given: int) -> None:
        self.clock = HandClock()
        self.decider = Echo()
        self.durations = Histogram()
        self.hub = Hub(self.decider, self.clock, NativeSettings(**given), self.durations)
        self.socket, self.client = self.connect()
        self.decoder = hpack.Decoder()

    def connect(self, hello: bytes = HELLO) -> tuple[RecordingSocket, NativeConnection]:
        socket, connection = RecordingSocket(), NativeConnection(self.hub, None)
        connection.connection_made(socket)
        connection.data_received(hello)
        socket.take()
        return socket, connection

    def send(self, data: bytes) -> list[Frame]:
        self.client.data_received(data)
        return self.read()

    def read(self) -> list[Frame]:
        return parse(self.socket.take())

    def later(self, seconds: float) -> list[Frame]:
        """Time passes, and the hub's timer looks once."""
        self.clock.now_us += int(seconds * SECOND_US)
        self.client.look_after(self.clock.now_us)
        return self.read()

    def answers(self, frames: list[Frame]) -> dict[int, tuple[str, bytes]]:
        """Status and body by stream."""
        found: dict[int, tuple[str, bytes]] = {}
        for each in frames:
            status, body = found.get(each.stream, ("", b""))
            if each.kind == HEADERS:
                fields = {str(name): str(value) for name, value in self.decoder.decode(each.payload)}
                status = fields.get("grpc-status", status) or fields[":status"]
            elif each.kind == DATA:
                body += each.payload
            found[each.stream] = (status, body)
        return found


@on_loop
async def test_a_read_costs_one_clock_reading_and_one_write() -> None:
    """However many calls it brings; each is answered with its own bytes."""
    served = Served()
    before = served.clock.readings
    served.client.data_received(b"".join(call(stream, b"%d" % stream) for stream in range(1, 41, 2)))
    writes = len(served.socket.writes)

    assert served.clock.readings - before == 1
    assert writes == 1
    assert served.answers(served.read()) == {stream: ("0", message(b"%d" % stream)) for stream in range(1, 41, 2)}
    assert sum(served.durations.counts) == 20


@on_loop
async def test_late_answers_are_written_together() -> None:
    """One write for all that came in one turn of the loop, each to its own call, errors too."""
    served = Served()
    served.send(b"".join(call(stream, b"late") for stream in (1, 3, 5)))
    for number, reply in enumerate(served.decider.replies[:2]):
        reply(b"%d" % number)
    served.decider.replies[2](GrpcError(GrpcCode.UNAVAILABLE, "no"))
    at_once = len(served.socket.writes)
    await asyncio.sleep(0)
    writes = len(served.socket.writes)

    assert (at_once, writes) == (0, 1)
    assert served.answers(served.read()) == {1: ("0", message(b"0")), 3: ("0", message(b"1")), 5: ("14", b"")}
    assert sum(served.durations.counts) == 3


@on_loop
async def test_a_reply_counts_once_and_never_for_another_call() -> None:
    """A second answer, one for a call that was given up, one after the connection's end."""
    served = Served()
    served.send(call(1, b"late") + call(3, b"late") + call(5, b"late"))
    one, given_up, after_end = served.decider.replies
    one(b"first")
    one(b"second")
    served.client.data_received(frame(RST_STREAM, 0, 3, word(8)))
    given_up(b"too late")
    await asyncio.sleep(0)
    answers = served.answers(served.read())
    served.client.connection_lost(None)
    after_end(b"much too late")
    await asyncio.sleep(0)

    assert answers == {1: ("0", message(b"first"))}
    assert served.socket.writes == []


@on_loop
async def test_a_bug_in_a_decision_ends_that_call_alone(caplog: pytest.LogCaptureFixture) -> None:
    """INTERNAL without the exception's words, which are in the log; its reply reaches nobody else."""
    served = Served()
    frames = served.send(call(1, b"crash") + call(3, b"fine") + call(5, b"late"))
    served.decider.replies[0](b"from the grave")
    await asyncio.sleep(0)

    assert served.answers(frames) == {1: ("13", b""), 3: ("0", message(b"fine"))}
    assert not [each for each in frames if b"secret" in each.payload]
    assert "secret words" in caplog.text
    assert served.read() == []


def _fields(**changes: bytes) -> list[tuple[bytes, bytes]]:
    changed = {name.replace("_", "-").encode(): value for name, value in changes.items()}
    return [(name, changed.pop(name, value)) for name, value in CALL] + list(changed.items())


@on_loop
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (call(1, b"error"), "14"),
        (call(1, b"x", _fields(content_type=b"text/html")), "415"),
        (call(1, b"x", _fields(content_type=b"application/grpc+json")), "12"),
        (call(1, b"x", _fields(grpc_encoding=b"br")), "12"),
        (call(1, b"x", _fields(grpc_timeout=b"0m")), "4"),
        (call(1, b"x", _fields(grpc_timeout=b"soon")), "13"),
        (call(1, b"x", [(n, b"/no.Such/Method" if n == b":path" else v) for n, v in CALL]), "12"),
        (headers(1, flags=END_HEADERS | END_STREAM), "13"),
        (headers(1) + frame(DATA, END_STREAM, 1, message(b"abc")[:-1]), "13"),
        (headers(1) + frame(DATA, END_STREAM, 1, b"\2" + message(b"abc")[1:]), "13"),
        (call(1, bytes(101)), "8"),
        (headers(1) + frame(DATA, 0, 1, message(bytes(101))) + frame(DATA, END_STREAM, 1), "8"),
    ],
)  # fmt: skip
async def test_a_call_that_is_not_served_gets_its_status(data: bytes, status: str) -> None:
    """And the next one is served; nothing was decided for it."""
    served = Served(max_message_bytes=100)
    refused = served.answers(served.send(data))
    good = served.answers(served.send(call(3, b"next")))

    assert refused[1][0] == status
    assert good == {3: ("0", message(b"next"))}


@on_loop
async def test_a_gzip_message_is_decided_unpacked() -> None:
    """Flagged, under a grpc-encoding."""
    served = Served()
    packed = b"\1" + message(gzip.compress(b"hello"))[1:]
    data = headers(1, _fields(grpc_encoding=b"gzip")) + frame(DATA, END_STREAM, 1, packed)

    assert served.answers(served.send(data)) == {1: ("0", message(b"hello"))}


@on_loop
async def test_the_answer_is_owed_in_time() -> None:
    """10 ms, or 0.8 of what the caller waits."""
    served = Served()
    served.send(call(1) + call(3, fields=_fields(grpc_timeout=b"1H")) + call(5, fields=_fields(grpc_timeout=b"5m")))

    assert served.decider.deadlines_us == [10_000, 10_000, 4_000]


@on_loop
async def test_a_call_whose_time_went_by_in_the_same_read_is_not_decided() -> None:
    """The one before it took longer than its caller waits."""
    served = Served()
    frames = served.send(call(1, fields=_fields(grpc_timeout=b"1n")) + call(3, fields=_fields(grpc_timeout=b"1u")))

    assert [status for status, _ in served.answers(frames).values()] == ["4", "4"]
    assert served.decider.deadlines_us == []


@on_loop
async def test_a_client_that_does_not_read_is_not_read() -> None:
    """Reading stops until it has room, and after the patience is over the connection is cut."""
    served = Served()
    served.client.pause_writing()
    paused = served.socket.reads
    served.client.resume_writing()
    resumed = served.socket.reads
    served.later(30)
    served.client.pause_writing()
    served.later(9)
    patient = served.socket.state
    served.later(2)

    assert (paused, resumed) == (False, True)
    assert (patient, served.socket.state) == ("open", "aborted")
    assert served.hub.stats().abuse["slow_reader"] == 1


def fill(connection: NativeConnection, data: bytes) -> None:
    """What the loop does with a read."""
    buffer = connection.get_buffer(-1)
    buffer[: len(data)] = data
    connection.buffer_updated(len(data))


@on_loop
async def test_who_fills_the_buffer_lets_others_speak_first() -> None:
    """A full read is worked through, and the next one waits for a turn of the loop; a shorter one waits for nothing."""
    served = Served()
    size = len(served.client.get_buffer(-1))
    fill(served.client, call(1, b"one"))
    after_short = served.socket.reads
    begun = headers(3)
    fill(served.client, begun + frame(DATA, 0, 3, bytes(size - len(begun) - 9)))
    after_full = served.socket.reads
    await asyncio.sleep(0)

    assert (after_short, after_full, served.socket.reads) == (True, False, True)


@on_loop
async def test_a_full_read_of_a_client_that_does_not_read_keeps_it_waiting() -> None:
    """Only when it reads again is it read; one that closed meanwhile is left alone."""
    served, other = Served(), Served()
    for each in (served, other):
        each.client.pause_writing()
        fill(each.client, bytes(len(each.client.get_buffer(-1))))
    other.client.resume_writing()
    fill(other.client, bytes(len(other.client.get_buffer(-1))))
    other.socket.close()
    await asyncio.sleep(0)

    assert (served.socket.reads, other.socket.reads) == (False, False)


@on_loop
async def test_flow_control_callbacks_after_the_end_do_nothing() -> None:
    """The loop may call them while a transport closes."""
    served = Served()
    served.socket.close()
    served.client.pause_writing()
    served.client.resume_writing()
    served.client.connection_lost(None)
    served.client.pause_writing()
    served.client.resume_writing()
    served.client.abort()

    assert served.socket.reads


@on_loop
async def test_a_fault_is_said_and_the_connection_closed() -> None:
    """GOAWAY, close; a client that never takes it is cut off."""
    served = Served()
    (goaway,) = served.send(frame(PING, 0, 1, bytes(8)))
    served.send(call(1))
    closed = served.socket.state
    served.later(5)
    patient = served.socket.state
    served.later(6)

    assert goaway.payload[4:8] == word(ErrorCode.PROTOCOL_ERROR)
    assert (closed, patient, served.socket.state) == ("closed", "closed", "aborted")
    assert not any(served.hub.stats().abuse.values())


@on_loop
@pytest.mark.parametrize("hello", [b"", PREFACE, PREFACE[:5]])
async def test_a_client_that_does_not_settle_is_closed(hello: bytes) -> None:
    """Ten seconds for preface and SETTINGS."""
    served = Served()
    served.socket, served.client = served.connect(hello)
    early = served.later(9)
    frames = served.later(2)

    assert early == []
    assert [each.payload[4:8] for each in frames] == [word(ErrorCode.ENHANCE_YOUR_CALM)]
    assert served.hub.stats().abuse["stalled"] == 1


@on_loop
async def test_a_stalled_call_closes_the_connection() -> None:
    """Slowloris; a friend beside it is not touched."""
    served = Served()
    other_socket, other = served.connect()
    served.send(headers(1))
    frames = [each for _ in range(20) for each in served.later(1)]
    other.look_after(served.clock.now_us)

    assert [each.payload[4:8] for each in frames] == [word(ErrorCode.ENHANCE_YOUR_CALM)]
    assert served.socket.state == "closed"
    assert other_socket.state == "open"


@on_loop
async def test_an_old_connection_is_told_to_leave_in_two_steps() -> None:
    """GOAWAY 2^31-1 within ±10 % of the age, the final one when it does not answer, the end after the grace."""
    served = Served(max_age_us=1_000 * SECOND_US)
    young = served.later(899)
    first = served.later(202)
    unheeded = served.later(3)
    after_it = served.send(call(1))
    served.later(8)

    assert young == []
    assert [(each.kind, each.payload[:4]) for each in first] == [(GOAWAY, word(2**31 - 1)), (PING, b"tide")]
    assert [(each.kind, each.payload[:4]) for each in unheeded] == [(GOAWAY, word(0))]
    assert [each.kind for each in after_it] == []
    assert served.socket.state == "closed"


@on_loop
async def test_a_call_under_way_ends_well_when_its_connection_is_old() -> None:
    """The client heard, its call is answered, then the connection closes; one that is never answered is cut."""
    served = Served(max_age_us=1_000 * SECOND_US)
    served.send(call(1, b"late"))
    _, ping = served.later(1_200)
    served.send(frame(PING, 1, 0, ping.payload))
    waiting = served.socket.state
    served.later(9)
    served.decider.replies[0](b"x")
    await asyncio.sleep(0)
    answers = served.answers(served.read())
    socket, client = served.connect()
    client.data_received(call(1, b"late"))
    for seconds in (1_200, 9, 2):
        served.clock.now_us += seconds * SECOND_US
        client.look_after(served.clock.now_us)

    assert waiting == "open"
    assert answers == {1: ("0", message(b"x"))}
    assert served.socket.state == "closed"
    assert socket.state == "aborted"


@on_loop
async def test_an_idle_connection_is_told_to_leave_where_age_is_off() -> None:
    """Calls put it off, and so does a watch that is open."""
    served = Served(max_age_us=0, max_idle_us=100 * SECOND_US)
    served.later(90)
    served.send(call(1))
    kept = served.later(90) + served.later(90)
    left = served.later(11)

    assert kept == []
    assert [each.kind for each in left] == [GOAWAY, PING]


@on_loop
async def test_watches_follow_and_are_bounded() -> None:
    """Each change, the end with a reset; more than allowed are refused."""
    served = Served(max_watches=2)
    fields = [(name, WATCH.encode() if name == b":path" else value) for name, value in CALL]
    frames = served.send(b"".join(call(stream, b"", fields) for stream in (1, 3, 5)))
    await asyncio.sleep(0)
    served.hub.health.set_serving(True)
    await asyncio.sleep(0.01)
    served.client.data_received(frame(RST_STREAM, 0, 1, word(8)))
    await asyncio.sleep(0.01)
    frames += served.read()
    again = served.answers(served.send(call(7, b"", fields)))
    served.client.connection_lost(None)
    await asyncio.sleep(0.01)

    assert [each.payload[-1] for each in frames if (each.kind, each.stream) == (DATA, 3)] == [2, 1]
    assert [each.flags & END_STREAM for each in frames if (each.kind, each.stream) == (HEADERS, 5)] == [1]
    assert 7 in again
    assert not served.client._watches


@on_loop
async def test_health_of_an_unknown_service_and_of_garbage() -> None:
    """NOT_FOUND and INVALID_ARGUMENT, for Watch too where it cannot be read."""
    served = Served()
    check, watch = ([(n, path.encode() if n == b":path" else v) for n, v in CALL] for path in (CHECK, WATCH))
    frames = served.send(
        call(1, b"\x0a\x01x", check) + call(3, b"\x0a\x05", check) + call(5, b"\x0a\x05", watch) + call(7, b"", check)
    )

    assert served.answers(frames) == {1: ("5", b""), 3: ("3", b""), 5: ("3", b""), 7: ("0", message(b"\x08\x02"))}


@on_loop
async def test_more_connections_than_allowed_are_closed() -> None:
    """At the cap one is taken, the next is not; one that ends makes room."""
    served = Served(max_connections=2)
    _, second = served.connect()
    third, third_client = RecordingSocket(), NativeConnection(served.hub, None)
    third_client.connection_made(third)
    third_client.connection_lost(None)
    second.connection_lost(None)
    fourth, _ = served.connect()
    stats = served.hub.stats()

    assert (third.state, fourth.state) == ("aborted", "open")
    assert (stats.accepted, stats.refused, stats.open) == (3, 1, 2)


@on_loop
async def test_the_one_that_holds_the_most_pays_for_the_memory() -> None:
    """All connections share one bound; the others do not notice."""
    served = Served(max_held_bytes=100_000)
    big_socket, big = served.connect()
    big.data_received(headers(1) + b"".join(frame(DATA, 0, 1, bytes(16_000)) for _ in range(4)))
    held = served.hub.stats().held_bytes
    for stream in range(1, 9, 2):
        served.client.data_received(headers(stream) + frame(DATA, 0, stream, bytes(10_000)))
    served.send(frame(DATA, END_STREAM, 1, b"x"))
    big.connection_lost(None)

    assert held == 64_000
    assert big_socket.state == "closed"
    assert served.socket.state == "open"
    assert served.hub.stats().abuse["memory"] == 1
    assert served.hub.stats().held_bytes == 30_000


@on_loop
async def test_calls_are_counted_over_all_connections() -> None:
    """Those of connections that have ended too."""
    served = Served()
    _, other = served.connect()
    served.send(call(1) + call(3))
    other.data_received(call(1))
    other.connection_lost(None)
    other.connection_lost(None)

    assert served.hub.stats().streams == 3


@on_loop
async def test_a_connection_that_comes_during_the_drain_is_told_to_leave() -> None:
    """It was accepted before the listener closed."""
    served = Served()
    served.client.connection_lost(None)
    await served.hub.drain(0)
    socket = RecordingSocket()
    NativeConnection(served.hub, None).connection_made(socket)
    await served.hub.drain(0)

    assert [each.kind for each in parse(b"".join(socket.writes))][-2:] == [GOAWAY, PING]
    assert socket.state == "aborted"


@on_loop
async def test_the_timer_looks_at_every_connection_and_rests_without_any() -> None:
    """More than fit in one slice; all of them never settled."""
    served = Served(sweep_us=1_000, settle_us=1)
    sockets = []
    for _ in range(600):
        socket, client = RecordingSocket(), NativeConnection(served.hub, None)
        client.connection_made(socket)
        sockets.append((socket, client))
    served.clock.now_us += SECOND_US
    await asyncio.sleep(0.05)
    states = {socket.state for socket, _ in sockets}
    for _, client in [*sockets, (None, served.client)]:
        client.connection_lost(None)
    await asyncio.sleep(0.01)

    assert states == {"closed"}
    assert served.hub._timer is None
