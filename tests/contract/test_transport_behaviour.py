"""What every gRPC transport does, over a real channel."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import grpc.aio
import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from grpc_health.v1 import health_pb2

from ratelimit_service.errors import TidegateError
from ratelimit_service.wire.rls.client import decode_response, encode_request
from support.deciders import ValueDecider, request_for
from support.transports import ASK, CHECK, TRANSPORTS, WATCH, Factory, code_of, on_loop, serving

OK = grpc.StatusCode.OK
NAMED = ("", "ratelimit", "envoy.service.ratelimit.v3.RateLimitService")


@pytest.fixture(params=TRANSPORTS)
def make(request: pytest.FixtureRequest) -> Factory:
    return TRANSPORTS[request.param]


def _body(value: bytes) -> bytes:
    return encode_request(request_for(value))


def _check(service: str) -> bytes:
    return health_pb2.HealthCheckRequest(service=service).SerializeToString()


def _status(body: bytes) -> int:
    return health_pb2.HealthCheckResponse.FromString(body).status


@on_loop
async def test_a_call_is_answered_with_the_deciders_bytes(make: Factory) -> None:
    """Upb on the client's side reads what the decider wrote."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        ask = channel.unary_unary(ASK, rls_pb2.RateLimitRequest.SerializeToString, rls_pb2.RateLimitResponse.FromString)
        sent = rls_pb2.RateLimitRequest.FromString(_body(b"over"))

        assert (await ask(sent)).overall_code == rls_pb2.RateLimitResponse.OVER_LIMIT


@on_loop
async def test_concurrent_clients_each_get_their_own_answer(make: Factory) -> None:
    """Early and late answers on several connections never cross."""
    values = [b"over-1", b"late", b"x"] * 30
    async with serving(make, ValueDecider()) as transport:
        target = transport.addresses[0]
        async with (
            grpc.aio.insecure_channel(target, [("id", 1)]) as one,
            grpc.aio.insecure_channel(target, [("id", 2)]) as two,
        ):
            calls = [(one, two)[index % 2].unary_unary(ASK)(_body(value)) for index, value in enumerate(values)]
            answers = await asyncio.gather(*calls)

    assert [value.startswith(b"over") for value in values] == [decode_response(answer).over for answer in answers]


@on_loop
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"late", OK),
        (b"twice", OK),
        (b"late-error", grpc.StatusCode.UNAVAILABLE),
        (b"\xff\xfe", OK),
    ],
)
async def test_a_late_reply_is_delivered_once(make: Factory, value: bytes, code: grpc.StatusCode) -> None:
    """The first of two answers counts, and an error may come late too."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        assert code is await code_of(channel.unary_unary(ASK)(_body(value)))


@on_loop
async def test_hostile_bytes_are_the_deciders_to_judge(make: Factory) -> None:
    """The decider's INVALID_ARGUMENT reaches the client with its message."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        call = channel.unary_unary(ASK)(b"\x0a\xff\xff\xff\xff\xff\xff")

        assert await code_of(call) is grpc.StatusCode.INVALID_ARGUMENT
        assert "byte 1" in await call.details()


@on_loop
async def test_a_bug_in_a_decision_ends_that_call_alone(make: Factory) -> None:
    """The client of the failed call gets an error; the connection lives on."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        assert await code_of(channel.unary_unary(ASK)(_body(b"crash"))) in (
            grpc.StatusCode.UNKNOWN,
            grpc.StatusCode.INTERNAL,
        )
        assert await code_of(channel.unary_unary(ASK)(_body(b"x"))) is OK


@on_loop
async def test_a_cancelled_call_takes_its_late_reply_quietly(make: Factory) -> None:
    """A reply to a caller that has gone changes nothing for the others."""
    decider = ValueDecider()
    async with serving(make, decider) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        call = channel.unary_unary(ASK)(_body(b"never"), timeout=0.2)

        assert await code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        decider.waiting[0](b"too late")
        assert await code_of(channel.unary_unary(ASK)(_body(b"x"))) is OK


@on_loop
async def test_the_answer_is_owed_within_the_lesser_of_both_deadlines(make: Factory) -> None:
    """10 ms when the caller waits long or for ever, 0.8 of its timeout when it does not."""
    decider = ValueDecider()
    async with serving(make, decider) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        await channel.unary_unary(ASK)(_body(b"x"))
        await channel.unary_unary(ASK)(_body(b"x"), timeout=60)
        await code_of(channel.unary_unary(ASK)(_body(b"x"), timeout=0.005))
    allowed_us = [deadline_us - now.boot_us for now, deadline_us in decider.calls]

    assert allowed_us[:2] == [10_000, 10_000]
    assert all(0 < late_us <= 5_000 for late_us in allowed_us[2:])


@on_loop
async def test_a_call_whose_deadline_passed_on_arrival_is_not_decided(make: Factory) -> None:
    """It waited in the socket while the loop was busy; its caller has gone."""
    decider = ValueDecider()
    async with serving(make, decider) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        # A client with threads of its own: it sends and gives up while the loop is held.
        with grpc.insecure_channel(transport.addresses[0], [("id", 4)]) as away:
            elsewhere = away.unary_unary(ASK)
            await asyncio.to_thread(elsewhere, _body(b"x"))
            late: list[grpc.Future] = []

            def meanwhile() -> None:
                late.append(elsewhere.future(_body(b"x"), timeout=0.05))
                late[0].exception(timeout=30)

            decider.while_stalled = meanwhile
            assert await code_of(channel.unary_unary(ASK)(_body(b"slow"))) is OK
            assert late[0].code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert await code_of(channel.unary_unary(ASK)(_body(b"x"))) is OK
    assert len(decider.calls) == 3


@on_loop
async def test_a_message_over_the_cap_is_refused(make: Factory) -> None:
    """One byte over 4 MiB is RESOURCE_EXHAUSTED; the cap itself passes, and so does the next call."""
    cap = 4 * 1024 * 1024
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        ask = channel.unary_unary(ASK)

        assert await code_of(ask(bytes(cap + 1))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await code_of(ask(bytes(cap))) is grpc.StatusCode.INVALID_ARGUMENT
        assert await code_of(ask(_body(b"x"))) is OK


@on_loop
@pytest.mark.parametrize("method", ["/envoy.service.ratelimit.v3.RateLimitService/Nope", "/a.B/C"])
async def test_an_unknown_method_is_unimplemented(make: Factory, method: str) -> None:
    """Both an unknown method of ours and an unknown service."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        assert await code_of(channel.unary_unary(method)(b"")) is grpc.StatusCode.UNIMPLEMENTED


@on_loop
@pytest.mark.parametrize("service", NAMED)
async def test_health_check_follows_set_serving(make: Factory, service: str) -> None:
    """Each name that we serve under has the status of the server."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        check = channel.unary_unary(CHECK)
        before = _status(await check(_check(service)))
        transport.set_serving(False)

        assert before == health_pb2.HealthCheckResponse.SERVING
        assert _status(await check(_check(service))) == health_pb2.HealthCheckResponse.NOT_SERVING


@on_loop
@pytest.mark.parametrize(
    ("body", "code"), [(_check("nope"), grpc.StatusCode.NOT_FOUND), (b"\x0a\x05", grpc.StatusCode.INVALID_ARGUMENT)]
)
async def test_health_check_refuses_what_it_does_not_know(make: Factory, body: bytes, code: grpc.StatusCode) -> None:
    """An unknown service is NOT_FOUND, bytes that are no message INVALID_ARGUMENT."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        assert code is await code_of(channel.unary_unary(CHECK)(body))


@on_loop
async def test_health_watch_tells_every_change_and_ends_on_drain(make: Factory) -> None:
    """The status at once, each change, and NOT_SERVING before the stream ends with OK."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        watch = channel.unary_stream(WATCH)(_check("ratelimit"))
        seen = [_status(await watch.read())]
        transport.set_serving(False)
        seen.append(_status(await watch.read()))
        transport.set_serving(True)
        seen.append(_status(await watch.read()))
        await transport.drain(5)
        seen.append(_status(await watch.read()))

        assert await watch.read() is grpc.aio.EOF
        assert await watch.code() is OK
    response = health_pb2.HealthCheckResponse

    assert seen == [response.SERVING, response.NOT_SERVING, response.SERVING, response.NOT_SERVING]


@on_loop
async def test_health_watch_of_an_unknown_service_stays_open(make: Factory) -> None:
    """SERVICE_UNKNOWN is told once and the stream ends only on drain."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        watch = channel.unary_stream(WATCH)(_check("nope"))
        first = _status(await watch.read())
        transport.set_serving(False)
        await channel.unary_unary(CHECK)(_check(""))
        stays = not watch.done()
        await transport.drain(5)

        assert first == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert stays
        assert await watch.read() is grpc.aio.EOF


@on_loop
async def test_health_watch_refuses_bytes_that_are_no_message(make: Factory) -> None:
    """INVALID_ARGUMENT, as for Check."""
    async with serving(make, ValueDecider()) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        watch = channel.unary_stream(WATCH)(b"\x08\x01")

        assert await watch.code() is grpc.StatusCode.INVALID_ARGUMENT


@on_loop
async def test_drain_finishes_calls_under_way_and_refuses_new_ones(make: Factory) -> None:
    """A waiting call gets its answer during the drain; a new connection is refused."""
    decider = ValueDecider()
    async with serving(make, decider) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        call = channel.unary_unary(ASK)(_body(b"never"))
        await decider.is_waiting.wait()
        drain = asyncio.create_task(transport.drain(10))
        await asyncio.sleep(0.05)
        under_way = not drain.done()
        async with grpc.aio.insecure_channel(transport.addresses[0], [("id", 3)]) as late_comer:
            refused = await code_of(late_comer.unary_unary(ASK)(_body(b"x"), timeout=5))
        decider.waiting[0](b"\x08\x01")
        answer = await call
        await drain

    assert under_way
    assert refused is grpc.StatusCode.UNAVAILABLE
    assert answer == b"\x08\x01"


@on_loop
async def test_drain_ends_by_its_grace(make: Factory) -> None:
    """A call that is never answered is cancelled when the grace is over."""
    decider = ValueDecider()
    async with serving(make, decider) as transport, grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        call = channel.unary_unary(ASK)(_body(b"never"))
        await decider.is_waiting.wait()
        await transport.drain(0.05)

        assert await code_of(call) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@on_loop
async def test_all_addresses_are_served(make: Factory, tmp_path: Path) -> None:
    """Two TCP ports and a Unix socket, told with their real ports."""
    unix = f"unix:{tmp_path}/rls.sock"
    async with serving(make, ValueDecider(), ["127.0.0.1:0", "[::1]:0", unix]) as transport:
        codes = []
        for address in transport.addresses:
            async with grpc.aio.insecure_channel(address) as channel:
                codes.append(await code_of(channel.unary_unary(ASK)(_body(b"x"), timeout=5)))

        assert codes == [OK, OK, OK]
        assert transport.addresses[2] == unix
        assert not any(address.endswith(":0") for address in transport.addresses)


@on_loop
async def test_an_address_in_use_is_named(make: Factory, tmp_path: Path) -> None:
    """A taken port and a live Unix socket are refused, and the first server goes on."""
    async with serving(make, ValueDecider(), ["127.0.0.1:0", f"unix:{tmp_path}/rls.sock"]) as first:
        for address in first.addresses:
            second = make(ValueDecider(), ["127.0.0.1:0", address], None, 1024)
            with pytest.raises(TidegateError, match=address):
                await second.start()
            assert second.addresses == []
        async with grpc.aio.insecure_channel(first.addresses[1]) as channel:
            assert await code_of(channel.unary_unary(ASK)(_body(b"x"))) is OK


@on_loop
async def test_a_path_too_long_for_a_socket_is_named(make: Factory, tmp_path: Path) -> None:
    """The kernel takes 107 bytes."""
    address = f"unix:{tmp_path}/{'x' * 120}"
    with pytest.raises(TidegateError, match=address):
        await make(ValueDecider(), [address], None, 1024).start()


@on_loop
async def test_a_socket_left_by_a_dead_server_is_taken_over(make: Factory, tmp_path: Path) -> None:
    """Start, die without drain, start again on the same path."""
    path = tmp_path / "rls.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    unix = f"unix:{path}"
    async with serving(make, ValueDecider(), [unix]), grpc.aio.insecure_channel(unix) as channel:
        assert await code_of(channel.unary_unary(ASK)(_body(b"x"))) is OK


@on_loop
async def test_draining_twice_or_before_start_does_nothing(make: Factory) -> None:
    """Shutdown paths may cross."""
    transport = make(ValueDecider(), ["127.0.0.1:0"], None, 1024)
    await transport.drain(1)
    await transport.drain(1)

    assert transport.addresses == []
