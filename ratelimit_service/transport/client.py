"""Ask a running rate-limit service over gRPC; what `tidegate check` does.

Any server of Envoy's protocol will do, not only ours. The command line is the only caller: services ask from Envoy.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import grpc
import grpc.aio

from ratelimit_service.errors import TidegateError
from ratelimit_service.transport.health import RLS_SERVICE
from ratelimit_service.transport.tls import ClientTls, read_client_files
from ratelimit_service.wire.grpc.status import GrpcCode
from ratelimit_service.wire.protobuf import MalformedMessage
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.messages import Request, Verdict

_CODES: Final = {int(code): code for code in GrpcCode}


class CallFailed(TidegateError):
    """The service gave no verdict.

    Attributes:
        code: gRPC status; one that `GrpcCode` does not know is UNKNOWN.
        message: The server's or grpcio's words.
    """

    def __init__(self, code: GrpcCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class RateLimitClient:
    """One connection to a rate-limit service, made at the first question; an async context manager.

    Args:
        target: `HOST:PORT` or `unix:PATH`.
        tls: None: plain text.
        own_connection: False: grpcio may share it with other clients of this process that ask the same target.

    Raises:
        InvalidTls: The TLS files are not good; raised on construction.
    """

    def __init__(self, target: str, tls: ClientTls | None = None, *, own_connection: bool = False) -> None:
        options: list[tuple[str, str | int]] = [("grpc.use_local_subchannel_pool", 1)] if own_connection else []
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            if tls.server_name is not None:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            self._channel = grpc.aio.secure_channel(target, _credentials(tls), options=options)
        self._ask = self._channel.unary_unary(f"/{RLS_SERVICE}/ShouldRateLimit")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def ask(self, request: Request, timeout_s: float) -> Verdict:
        """Return the verdict on `request`, waiting at most `timeout_s` seconds, the connecting included.

        Raises:
            CallFailed: No verdict came; INTERNAL when the answer is no rate-limit response.
        """
        try:
            return decode_response(await self._ask(encode_request(request), timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            code = _CODES.get(error.code().value[0], GrpcCode.UNKNOWN)
            raise CallFailed(code, error.details() or "") from None
        except MalformedMessage as error:
            raise CallFailed(GrpcCode.INTERNAL, f"the answer is no rate-limit response: {error}") from error


async def ask(target: str, request: Request, timeout_s: float, tls: ClientTls | None = None) -> Verdict:
    """Ask once over a connection of its own; see `RateLimitClient`.

    Raises:
        CallFailed: No verdict came.
        InvalidTls: The TLS files are not good.
    """
    async with RateLimitClient(target, tls) as client:
        return await client.ask(request, timeout_s)


def _credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(*read_client_files(tls))
