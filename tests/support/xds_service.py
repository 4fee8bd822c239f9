"""A service process that follows an operator of the test."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from ratelimit_service.transport.client import ask
from ratelimit_service.wire.rls.messages import Descriptor, Request

PATIENCE_S = 60.0


class XdsService:
    """A running `tidegate serve --policies xds://…`, asked from the test's event loop."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.grpc = self.admin = ""

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    async def page(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(self._page, path)

    def _page(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.admin, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    async def is_ready(self) -> bool:
        return (await self.page("/readyz"))[0] == 200

    async def metric(self, series: str) -> float | None:
        """Value of a series, written as the text format has it; None: it is not there."""
        _, text = await self.page("/metrics")
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return None if found is None else float(found[1])

    async def shows(self, line: str) -> bool:
        """Whether the metrics have this line."""
        return line in (await self.page("/metrics"))[1].splitlines()

    async def is_over(self, domain: str, user: str, hits: int = 1) -> bool:
        """Whether a request of a user is over its limit."""
        descriptor = Descriptor(entries=((b"user", user.encode()),))
        request = Request(domain=domain.encode(), descriptors=(descriptor,), hits_addend=hits)
        return (await ask(self.grpc, request, PATIENCE_S)).over

    async def until(self, what: str, holds: Callable[[], object]) -> None:
        """Poll until it holds; `holds` may be a coroutine function."""
        began = time.monotonic()
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            assert time.monotonic() - began < PATIENCE_S, f"waited for {what}:\n{self.output()}"
            await asyncio.sleep(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_S)


@contextlib.asynccontextmanager
async def following(
    folder: Path, server: str, *flags: str, node: str = "pod-1", environment: Mapping[str, str] | None = None
) -> AsyncIterator[XdsService]:
    """A started service, which may have nothing yet; gone when the block ends. `server` empty: flags say it all."""
    source = ("--policies", f"xds://{server}", "--xds-node", node) if server else ()
    command = [
        sys.executable, "-m", "ratelimit_service.cli", "serve", *source, "--grpc", "127.0.0.1:0",
        "--admin", "127.0.0.1:0", "--drain-delay", "0s", *flags,
    ]  # fmt: skip
    log = folder / f"{node}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 — it takes a moment, once
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    service = XdsService(process, log)
    try:
        await service.until("the start", lambda: " grpc " in service.output() or process.poll() is not None)
        found = re.search(r"grpc (\S+) admin (\S+)\n", service.output())
        assert found, service.output()
        service.grpc, service.admin = found.groups()
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
