"""A client of an operator's stream that answers what a test says, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

import grpc.aio

from ratelimit_service.wire.xds.discovery import DiscoveryResponse, Nack, decode_response
from ratelimit_service.wire.xds.resources import Refusal
from support.ads_client import AdsClient, resources_of

Answer = Callable[[AdsClient, DiscoveryResponse], Awaitable[None]]

_LOOK_S: Final = 0.02


async def accept(client: AdsClient, response: DiscoveryResponse) -> None:
    """As a replica that runs whatever comes."""
    await client.accept(response)


async def refuse(client: AdsClient, response: DiscoveryResponse) -> None:
    """As a foreign client that says no and not why."""
    await client.refuse(response, Nack("no"))


def refusing(name: str, version: str) -> Answer:
    """As a replica that cannot run one version of one policy; `name`: `<namespace>/<name>`."""

    async def answer(client: AdsClient, response: DiscoveryResponse) -> None:
        found = resources_of(response).get(f"Policy {name}")
        if found is not None and found.version == version:
            refusal = Refusal("Policy", name, version, "spec.rules[0]", "cannot be run here")
            await client.refuse(response, Nack("1 problem", (refusal,)))
        else:
            await client.accept(response)

    return answer


class AdsFollower:
    """A node of the operator; when its stream ends, it begins another.

    Args:
        address: Of the operator.
        node: Its name.

    Attributes:
        answer: What it does about a response.
        reads: False: it leaves in the network what comes.
        responses: What came, oldest first.
    """

    def __init__(self, address: str, node: str) -> None:
        self.answer: Answer = accept
        self.reads = True
        self.responses: list[DiscoveryResponse] = []
        self._address, self._node = address, node
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[Any] = self._loop.create_task(self._follow())
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                async with AdsClient(self._address, self._node) as client:
                    await client.subscribe()
                    await self._converse(client)
            await asyncio.sleep(_LOOK_S)

    async def _converse(self, client: AdsClient) -> None:
        while True:
            while not self.reads:  # noqa: ASYNC110 — set by another thread
                await asyncio.sleep(_LOOK_S)
            body = await client.call.read()
            if body is grpc.aio.EOF:
                return
            self.responses.append(decode_response(body))
            await self.answer(client, self.responses[-1])
