"""Replicas under chaos: stores in this process, and services in processes of their own that are asked over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
from chaos.laws import RULES, SLOTS, STANDING_PERCENT, Rule, in_force

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.clock import Clock, SlewedWall
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.masters import NewMasterRule
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.redis.store import RedisStore
from ratelimit_service.quota.store import Charge, Outcome
from ratelimit_service.redis_server.address import parse_store_url
from ratelimit_service.transport.client import CallFailed, RateLimitClient
from ratelimit_service.wire.rls.messages import Descriptor, Request

DEADLINE_US: Final = 10_000
_READY_S: Final = 30.0
_UNBOUNDED: Final = 2**64 - 1


Asked = Callable[[bool | None], None]
"""Takes the answer to one call: whether it passed; None: there was no answer."""


class Replica(Protocol):
    """One of several that share a budget."""

    def ask(self, rule: Rule, key: bytes, done: Asked) -> None:
        """One hit; never waits."""

    async def look(self) -> tuple[dict[str, int], int]:
        """The bound by rule, and how many hits the store has granted so far that may be spent."""

    async def start(self) -> None:
        """Begin; returns when the store is connected."""

    async def close(self) -> None:
        """End in order."""

    def complaints(self) -> list[str]:
        """What went wrong that must not; empty: it works."""


class SteppedClock(Clock):
    """A clock whose system time a test can set, as an administrator would."""

    def __init__(self) -> None:
        super().__init__()
        self.step_us = 0
        instant = super().read()
        self._slewed = SlewedWall(instant.wall_us, instant.boot_us)

    def read(self) -> Instant:
        """Now, by the same slewing as ever."""
        boot_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000
        return Instant(self._slewed.advance(time.time_ns() // 1_000 + self.step_us, boot_us), boot_us)


class StoreReplica:
    """A store in this process, asked as the limiter asks."""

    def __init__(self, url: str, new_master: str, wait_replicas: int) -> None:
        self.clock = SteppedClock()
        settings = ReplicaSettings(
            leases=LeaseSettings(),
            slots=SLOTS,
            standing_percent=STANDING_PERCENT,
            new_master=NewMasterRule(new_master),
        )
        self._store = RedisStore(parse_store_url(url), settings, self.clock, wait_replicas=wait_replicas)
        self._store.apply(in_force())

    async def start(self) -> None:
        await self._store.start()
        await eventually(lambda: not self._store.stats().problems and self._store.stats().slot is not None)

    def ask(self, rule: Rule, key: bytes, done: Asked) -> None:
        now = self.clock.read()
        charges = (Charge(rule.name.encode(), rule.limit, key, 1, failure=rule.mode),)

        def told(outcomes: Sequence[Outcome]) -> None:
            done(not outcomes[0].over)

        outcomes = self._store.charge(charges, now)
        if outcomes is None:
            self._store.charge_later(charges, now.boot_us + DEADLINE_US, told)
        else:
            told(outcomes)

    async def look(self) -> tuple[dict[str, int], int]:
        stats = self._store.stats().leases
        return {rule.name: self._store.bound(rule.name) for rule in RULES}, stats.granted - stats.forfeited

    async def close(self) -> None:
        await self._store.close()

    def complaints(self) -> list[str]:
        return []


class ServiceReplica:
    """`tidegate serve` in a process of its own, asked over gRPC; it can be killed, stopped and started again."""

    def __init__(self, folder: Path, policies: str) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "policies.yaml").write_text(policies)
        self._log = folder / "log"
        self._grpc = self._admin = "127.0.0.1:0"
        self._process: subprocess.Popen[bytes] | None = None
        self._client: RateLimitClient | None = None
        self._pages: httpx.AsyncClient | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._is_expected_to_end = False

    async def start(self) -> None:
        await self.spawn()
        await eventually(self._is_connected)

    async def spawn(self) -> None:
        """Begin to run; the second time on the same ports."""
        begun = self._log.stat().st_size if self._log.exists() else 0
        command = [
            sys.executable, "-m", "ratelimit_service.cli", "serve", "--policies", str(self._folder / "policies.yaml"),
            "--grpc", self._grpc, "--admin", self._admin, "--drain-delay", "0s", "--log-format", "console",
        ]  # fmt: skip
        self._run(command)
        found = await eventually(
            lambda: re.search(r"is ready: grpc (\S+) admin (\S+)", self._log.read_text()[begun:]), self._log.read_text
        )
        self._grpc, self._admin = found[1], found[2]
        self._client = RateLimitClient(self._grpc)
        self._pages = httpx.AsyncClient(base_url=f"http://{self._admin}", timeout=10)

    def _run(self, command: Sequence[str]) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._is_expected_to_end = False

    def ask(self, rule: Rule, key: bytes, done: Asked) -> None:
        task = asyncio.get_running_loop().create_task(self._ask(rule, key, done))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, rule: Rule, key: bytes, done: Asked) -> None:
        assert self._client is not None
        request = Request(rule.domain.encode(), (Descriptor(((rule.name.encode(), key),)),))
        try:
            verdict = await self._client.ask(request, timeout_s=20)
        except CallFailed:
            done(None)
        else:
            done(not verdict.over)

    async def look(self) -> tuple[dict[str, int], int]:
        assert self._pages is not None
        try:
            page = (await self._pages.get("/metrics")).text
        except httpx.HTTPError:
            return {}, 0
        bounds = {
            found[1]: _UNBOUNDED if found[2] == "+Inf" else int(float(found[2]))
            for found in re.finditer(
                r'^tidegate_admission_bound\{[^}]*rule="([^"]*)"[^}]*\} (\S+)$', page, re.MULTILINE
            )
        }
        fates = dict(re.findall(r'^tidegate_store_hits_total\{[^}]*fate="(\w+)"[^}]*\} (\S+)$', page, re.MULTILINE))
        return bounds, int(float(fates.get("granted", 0)) - float(fates.get("forfeited", 0)))

    async def _is_connected(self) -> bool:
        assert self._pages is not None
        with contextlib.suppress(httpx.HTTPError):
            page = (await self._pages.get("/metrics")).text
            return bool(re.search(r"^tidegate_store_node_up\{.*\} 1$", page, re.MULTILINE)) and not re.search(
                r"^tidegate_store_node_up\{.*\} 0$", page, re.MULTILINE
            )
        return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._is_expected_to_end = number is signal.SIGKILL
        self._process.send_signal(number)
        if number is signal.SIGKILL:
            self._process.wait()

    async def close(self) -> None:
        await asyncio.gather(*self._asking, return_exceptions=True)
        for each in (self._client, self._pages):
            if each is not None:
                await each.__aexit__(None, None, None)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, 30)

    def complaints(self) -> list[str]:
        written = self._log.read_text(errors="replace")
        found = ["its log has a traceback:\n" + written[-3_000:]] if "Traceback" in written else []
        if self._process is not None and self._process.poll() is not None and not self._is_expected_to_end:
            found.append(f"it ended with {self._process.returncode}:\n{written[-3_000:]}")
        return found


async def eventually(holds: Callable[[], Any], told: Callable[[], object] = lambda: "") -> Any:
    """Poll, at most 30 s; what was found. `holds` may be a coroutine function."""
    deadline = time.monotonic() + _READY_S
    while True:
        found = holds()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {_READY_S:g} s: {told()}"
        await asyncio.sleep(0.02)
