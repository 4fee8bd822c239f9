"""Two servers side by side on loopback, and a client that sends the same bytes to each and reads what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.transport.contract import Answer, Reply, Transport
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.decode import MalformedRequest, decode_request
from support.transports import TRANSPORTS, Factory

MOST_MESSAGE_BYTES: Final = 1_000
_PATIENCE_S: Final = 20.0
_READ_BYTES: Final = 65_536
_FAILURES: Final = {code.name.encode(): code for code in GrpcCode if code is not GrpcCode.OK}


class MirrorDecider:
    """Answers with what it was asked, so that a byte that is lost on the way there or back is seen.

    The domain `late` is answered later, `never` not at all; the name of a status code ends in it, with the first key of
    the first descriptor as its words.
    """

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        try:
            request = decode_request(body)
        except MalformedRequest as error:
            return GrpcError(GrpcCode.INVALID_ARGUMENT, str(error))
        assert 0 < deadline_us - now.boot_us <= 10_000
        code = _FAILURES.get(request.domain)
        if code is not None:
            words = b"".join(key for each in request.descriptors[:1] for key, _ in each.entries[:1])
            return GrpcError(code, words.decode(errors="replace"))
        if request.domain == b"never":
            return None
        if request.domain == b"late":
            asyncio.get_running_loop().call_soon(reply, body)
            return None
        return body


class Call(NamedTuple):
    """One call as it is sent.

    Attributes:
        kind: What it is meant to show; differences are listed by it.
        fields: Its header block.
        chunks: Its DATA frames.
        trailers: It ends in a header block of its own.
        gives_up: The client resets it once it has sent all.
        watches: The client resets it after the first message.
    """

    kind: str
    fields: tuple[tuple[str, str], ...]
    chunks: tuple[bytes, ...]
    trailers: bool = False
    gives_up: bool = False
    watches: bool = False


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        http: `:status`, 0: no header block came.
        status: `grpc-status`, -1: there is none.
        words: `grpc-message`, decoded.
        body: All DATA.
        reset: Error code of RST_STREAM or, of a connection that closed, -2; -1: it ended well.
    """

    http: int = 0
    status: int = -1
    words: str = ""
    body: bytes = b""
    reset: int = -1


@contextlib.contextmanager
def side_by_side(makes: Mapping[str, Factory] = TRANSPORTS) -> Iterator[Mapping[str, int]]:
    """Every transport with the same decider, by the port on which it listens."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers: dict[str, Transport] = {}

    async def start() -> dict[str, int]:
        for name, make in makes.items():
            servers[name] = make(MirrorDecider(), ["127.0.0.1:0"], None, MOST_MESSAGE_BYTES)
            await servers[name].start()
            servers[name].set_serving(True)
        return {name: int(server.addresses[0].rpartition(":")[2]) for name, server in servers.items()}

    async def stop() -> None:
        for server in servers.values():
            await server.drain(0.1)

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(_PATIENCE_S)
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(_PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_PATIENCE_S)
        loop.close()


class _Client:
    """One connection by the h2 library."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )  # fmt: skip
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.found: dict[int, Outcome] = {}
        self.open: set[int] = set()

    def write(self, calls: Sequence[Call], order: Sequence[int]) -> bytes:
        """The bytes of all calls, frame by frame in turns: `order` picks whose is next."""
        steps = {1 + 2 * place: self._steps(1 + 2 * place, call) for place, call in enumerate(calls)}
        self.open = set(steps)
        self.found = dict.fromkeys(steps, Outcome())
        # Streams begin in the order of their numbers.
        for one in steps.values():
            next(one)
        for pick in itertools.chain(order, itertools.repeat(0)):
            if not steps:
                return self.h2.data_to_send()
            number = sorted(steps)[pick % len(steps)]
            if next(steps[number], None) is None:
                del steps[number]
        raise AssertionError("the repetition has no end")

    def _steps(self, number: int, call: Call) -> Iterator[int]:
        last = len(call.chunks) - 1
        self.h2.send_headers(number, call.fields, end_stream=last < 0 and not call.trailers)
        yield number
        for place, chunk in enumerate(call.chunks):
            self.h2.send_data(number, chunk, end_stream=place == last and not call.trailers)
            yield number
        if call.trailers:
            self.h2.send_headers(number, [("x-sum", "1")], end_stream=True)
            yield number
        if call.gives_up:
            self.h2.reset_stream(number, 8)
            self.open.discard(number)

    def read(self, data: bytes, calls: Sequence[Call]) -> None:
        """Note what came."""
        for event in self.h2.receive_data(data):
            number = getattr(event, "stream_id", None)
            if number not in self.found:
                continue
            before = self.found[number]
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                self.found[number] = _with_fields(before, {str(name): str(value) for name, value in event.headers})
            elif isinstance(event, h2.events.DataReceived):
                self.found[number] = before._replace(body=before.body + event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, number)
                if calls[number // 2].watches and _is_whole(self.found[number].body):
                    self.h2.reset_stream(number, 8)
                    self.open.discard(number)
            elif isinstance(event, h2.events.StreamEnded):
                self.open.discard(number)
            elif isinstance(event, h2.events.StreamReset) and number in self.open:
                self.open.discard(number)
                self.found[number] = before._replace(reset=int(event.error_code))


def _is_whole(body: bytes) -> bool:
    return len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big")


def _with_fields(before: Outcome, fields: Mapping[str, str]) -> Outcome:
    return before._replace(
        http=int(fields.get(":status", before.http)),
        status=int(fields.get("grpc-status", before.status)),
        words=unquote(fields.get("grpc-message", before.words)),
    )


def ask(port: int, calls: Sequence[Call], order: Sequence[int], cuts: Sequence[int]) -> list[Outcome]:
    """Send all calls over one connection, their bytes in pieces, and return how each ended."""
    client = _Client()
    data = client.write(calls, order)
    places = [0, *sorted({cut % len(data) for cut in cuts} - {0}), len(data)]
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for start, end in itertools.pairwise(places):
                server.sendall(data[start:end])
            while client.open:
                received = server.recv(_READ_BYTES)
                if not received:
                    break
                client.read(received, calls)
                if more := client.h2.data_to_send():
                    server.sendall(more)
        except (ConnectionError, h2.exceptions.ProtocolError):
            pass
    return [
        outcome._replace(reset=-2) if number in client.open else outcome for number, outcome in client.found.items()
    ]
