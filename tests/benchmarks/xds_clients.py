"""Clients of an ADS server that do the protocol's work and nothing else, for `bench_xds`.

python -m tests.benchmarks.xds_clients HOST:PORT COUNT
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import grpc
import grpc.aio

from ratelimit_service.wire.xds.discovery import METHOD, DiscoveryRequest, decode_response, encode_request
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE

_PAUSE_S = 0.5


async def follow(address: str, node: str) -> None:
    """Accept whatever comes, on one stream after the other."""
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await follow_once(address, node)
        await asyncio.sleep(_PAUSE_S)


async def follow_once(address: str, node: str) -> None:
    """Accept whatever comes until the stream ends."""
    async with grpc.aio.insecure_channel(
        address, options=[("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        call = channel.stream_stream(METHOD)()
        await call.write(encode_request(DiscoveryRequest(RESOURCE_TYPE, node_id=node)))
        while (body := await call.read()) is not grpc.aio.EOF:
            response = decode_response(body)
            answer = DiscoveryRequest(RESOURCE_TYPE, response.version_info, response_nonce=response.nonce)
            await call.write(encode_request(answer))


async def main(address: str, count: int) -> None:
    """Until the process is ended."""
    await asyncio.gather(*(follow(address, f"pod-{number}") for number in range(count)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
