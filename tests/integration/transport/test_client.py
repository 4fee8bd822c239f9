"""The client of the command line against servers that behave and that do not."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from ratelimit_service.transport.client import CallFailed, RateLimitClient, ask
from ratelimit_service.wire.grpc.status import GrpcCode
from support.deciders import ValueDecider, request_for
from support.transports import ASK, TRANSPORTS, on_loop, serving


@on_loop
async def test_one_connection_asks_many_times() -> None:
    """Verdicts come back as values."""
    async with (
        serving(TRANSPORTS["grpcio"], ValueDecider()) as transport,
        RateLimitClient(transport.addresses[0]) as client,
    ):
        verdicts = [await client.ask(request_for(value), 5) for value in (b"x", b"over", b"late")]

    assert [verdict.over for verdict in verdicts] == [False, True, False]
    assert len(verdicts[0].statuses) == 1


@on_loop
@pytest.mark.parametrize(
    ("value", "code"), [(b"late-error", GrpcCode.UNAVAILABLE), (b"never", GrpcCode.DEADLINE_EXCEEDED)]
)
async def test_an_error_has_its_code_and_words(value: bytes, code: GrpcCode) -> None:
    """The server's status, or the client's own deadline."""
    async with serving(TRANSPORTS["grpcio"], ValueDecider()) as transport:
        with pytest.raises(CallFailed) as caught:
            await ask(transport.addresses[0], request_for(value), 0.5)

    assert caught.value.code is code
    assert caught.value.message
    assert str(caught.value).startswith(code.name)


@on_loop
async def test_nobody_there_is_unavailable() -> None:
    """A refused connection is told at once, not after the timeout."""
    with pytest.raises(CallFailed) as caught:
        await ask("127.0.0.1:1", request_for(b"x"), 20)

    assert caught.value.code is GrpcCode.UNAVAILABLE


@on_loop
@pytest.mark.parametrize(("status", "code"), [(None, GrpcCode.INTERNAL), (grpc.StatusCode.DATA_LOSS, GrpcCode.UNKNOWN)])
async def test_a_strange_server_is_an_error_of_ours(status: grpc.StatusCode | None, code: GrpcCode) -> None:
    """An answer that is no response is INTERNAL, a status that we have no name for UNKNOWN."""

    async def answer(_body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if status is not None:
            await context.abort(status, "lost")
        return b"\x12\x09"

    service, _, method = ASK[1:].partition("/")
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.aio.server(handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(CallFailed) as caught:
        await ask(f"127.0.0.1:{port}", request_for(b"x"), 5)
    await server.stop(None)

    assert caught.value.code is code
