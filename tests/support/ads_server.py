"""An ADS server that offers upstream's type only and checks nothing, as Envoy Gateway's does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

import grpc
import grpc.aio

from ratelimit_service.wire.xds.discovery import METHOD, decode_request, encode_resources, encode_response
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE, encode_config
from ratelimit_service.wire.xds.resources import encode_any


class FakeGateway:
    """Counts its versions from 1, and names no culprit.

    Attributes:
        acked: Version that the client last accepted.
        nacks: What it said of those that it refused.
        nodes: Names that clients gave.
    """

    def __init__(self) -> None:
        self.address = self.acked = ""
        self.version = "0"
        self.nacks: list[str] = []
        self.nodes: set[str] = set()
        self._resources = b""
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        service, _, method = METHOD.removeprefix("/").partition("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    def offer(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        self.version = str(int(self.version) + 1)
        packed = (encode_any(RATE_LIMIT_CONFIG_TYPE, encode_config(name, config)) for name, config in configs.items())
        self._resources = encode_resources(packed)
        self._changed.set()

    async def _stream(self, requests: Any, context: Any) -> None:
        reading = asyncio.ensure_future(self._read(requests))
        sent = ""
        try:
            while True:
                if sent != self.version and self.nodes:
                    sent = self.version
                    await context.write(encode_response(RATE_LIMIT_CONFIG_TYPE, sent, sent, self._resources))
                await self._changed.wait()
                self._changed.clear()
        finally:
            reading.cancel()

    async def _read(self, requests: Any) -> None:
        async for body in requests:
            request = decode_request(body)
            if request.type_url != RATE_LIMIT_CONFIG_TYPE:
                continue
            self.nodes.add(request.node_id) if request.node_id else None
            if request.nack is not None:
                self.nacks.append(request.nack.message)
            elif request.response_nonce:
                self.acked = request.version_info
            self._changed.set()
