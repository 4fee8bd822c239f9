"""One abuser of each kind at once against a process of its own, beside clients that behave."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import pytest

from ratelimit_service.wire.http2.frames import ErrorCode
from ratelimit_service.wire.rls.client import encode_request
from support.abusers import ABUSERS, Ending, attack
from support.deciders import request_for
from support.http2_frames import PREFACE, settings
from support.transports import ASK

TESTS = Path(__file__).parents[2]
STALL_US = 2_000_000
LONGEST_S = 60.0
IDLE = 200
CALLS = 400
GROWTH_KIB = 64 * 1024
"""Far above what it is, far below what any of these kinds would hold without a bound."""


class Service:
    """The process, its port, and when it has ended what it counted."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline())
        self.abuse: Mapping[str, int] = {}

    def peak_kib(self) -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1])


@contextmanager
def native_process() -> Iterator[Service]:
    command = [sys.executable, "-m", "support.native_process", str(STALL_US)]
    path = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        try:
            service = Service(process)
            yield service
            output, _ = process.communicate(timeout=30)
            service.abuse = json.loads(output)["abuse"]
        finally:
            process.kill()


async def _ask(port: int) -> int:
    body = encode_request(request_for(b"x"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(ASK)
        return sum([len(await ask(body, timeout=LONGEST_S)) > 0 for _ in range(CALLS)])


class Seen(NamedTuple):
    """What came of it: calls answered, how each abuser ended, what the server counted, and how far it grew."""

    answered: int
    endings: list[Ending]
    abuse: Mapping[str, int]
    grown_kib: int


async def _all_at_once() -> Seen:
    with native_process() as service:
        idle = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(IDLE)]
        for _, writer in idle:
            writer.write(PREFACE + settings())
        before_kib = service.peak_kib()
        friend = asyncio.create_task(_ask(service.port))
        with ThreadPoolExecutor(len(ABUSERS)) as pool:
            loop = asyncio.get_running_loop()
            attacks = [loop.run_in_executor(pool, attack, service.port, abuser, LONGEST_S) for abuser in ABUSERS]
            endings = await asyncio.gather(*attacks)
        answered = await friend
        grown_kib = service.peak_kib() - before_kib
        for _, writer in idle:
            writer.close()
    return Seen(answered, endings, service.abuse, grown_kib)


@pytest.mark.slow
def test_each_abuser_is_calmed_and_nobody_else_notices() -> None:
    """Every kind is closed for what it is, every other call is answered, and memory stays where it was."""
    seen = asyncio.run(_all_at_once())
    told = [ending.name for ending in seen.endings if ending.code is ErrorCode.ENHANCE_YOUR_CALM]

    assert seen.answered == CALLS
    assert [ending.name for ending in seen.endings if not ending.closed] == []
    # Who does not read is cut off, and cannot be told why.
    assert told == [abuser.name for abuser in ABUSERS if abuser.reads]
    assert {kind: count for kind, count in seen.abuse.items() if count} == Counter(
        abuser.abuse.value for abuser in ABUSERS
    )
    assert seen.grown_kib < GROWTH_KIB
