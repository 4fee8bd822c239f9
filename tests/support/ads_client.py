"""A client of an ADS server for tests, which answers what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc
import grpc.aio

from ratelimit_service.wire.xds.discovery import (
    METHOD,
    DiscoveryRequest,
    DiscoveryResponse,
    Nack,
    decode_response,
    encode_request,
)
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, WireResource, decode_any, decode_resource

PATIENCE_S = 30.0
"""How long a test waits for what must come."""


class AdsClient:
    """One stream. `async with AdsClient(address, "node") as client`."""

    def __init__(
        self,
        address: str,
        node: str,
        *,
        type_url: str = RESOURCE_TYPE,
        credentials: Any = None,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        given = (("grpc.max_receive_message_length", -1), *options)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=given)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options=given)
        self._type_url = type_url
        self._node = node
        self.call: Any = None
        self.version = ""

    async def __aenter__(self) -> Self:
        self.call = self._channel.stream_stream(METHOD)()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self._channel.close()

    async def subscribe(self, version: str = "") -> None:
        await self.send(DiscoveryRequest(self._type_url, version, node_id=self._node))

    async def send(self, request: DiscoveryRequest) -> None:
        await self.call.write(encode_request(request))

    async def receive(self) -> DiscoveryResponse:
        """The next response; raises grpc.aio.AioRpcError when the stream ends with an error."""
        body = await asyncio.wait_for(self.call.read(), PATIENCE_S)
        assert body is not grpc.aio.EOF
        return decode_response(body)

    async def accept(self, response: DiscoveryResponse) -> None:
        self.version = response.version_info
        await self.send(DiscoveryRequest(self._type_url, self.version, response_nonce=response.nonce))

    async def refuse(self, response: DiscoveryResponse, nack: Nack) -> None:
        await self.send(DiscoveryRequest(self._type_url, self.version, response_nonce=response.nonce, nack=nack))

    async def take(self) -> dict[str, WireResource]:
        """Accept the next response; its resources by `<kind> <name>`."""
        response = await self.receive()
        await self.accept(response)
        return resources_of(response)

    async def end(self) -> tuple[Any, str]:
        """Code and message of the stream's end, which must come."""
        code = await asyncio.wait_for(self.call.code(), PATIENCE_S)
        return code, await self.call.details()


def resources_of(response: DiscoveryResponse) -> dict[str, WireResource]:
    found = [decode_resource(decode_any(packed).value) for packed in response.resources]
    return {f"{each.kind} {each.name}": each for each in found}


async def until(claim: Callable[[], bool]) -> None:
    """Wait until it holds, which it must."""
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 — what is waited for tells nobody
            await asyncio.sleep(0.01)
