"""The native transport alone in a process, so that its memory is its own.

    python -m support.native_process STALL_US

At most 300 calls on a connection. Decides as `ValueDecider` does. Prints its port, and when its input ends what it
counted, as JSON.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop

from ratelimit_service.transport.native import NativeTransport
from ratelimit_service.transport.native_settings import NativeSettings
from support.deciders import ValueDecider, read_clock


async def serve(stall_us: int) -> None:
    settings = NativeSettings(max_streams=300, stall_us=stall_us, sweep_us=stall_us // 4)
    transport = NativeTransport(ValueDecider(), read_clock, ["127.0.0.1:0"], settings=settings)
    await transport.start()
    transport.set_serving(True)
    print(transport.addresses[0].rpartition(":")[2], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    stats = transport.stats()
    await transport.drain(1)
    print(msgspec.json.encode(stats).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
