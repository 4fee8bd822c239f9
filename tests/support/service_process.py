"""A real `tidegate serve`, started, watched and asked as users do."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

START_S = 30.0
TIDEGATE = [sys.executable, "-m", "ratelimit_service.cli"]


def policy_folder(folder: Path, policy: str) -> Path:
    """A folder of policies below another one, with one file."""
    policies = folder / "policies"
    policies.mkdir()
    (policies / "checkout.yaml").write_text(policy)
    return policies


class Running:
    """A started service and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.grpc = self.admin = ""

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=START_S)

    def page(self, path: str, method: str = "GET", body: str | None = None) -> tuple[int, str]:
        """Status and body of an admin page."""
        connection = http.client.HTTPConnection(self.admin, timeout=10)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def value(self, series: str) -> float:
        """A series of the metrics, 0 where it is not there."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.page("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def until_connected(self) -> None:
        """Wait for a server of the store."""
        up = re.compile(r"^tidegate_store_node_up\{.*\} 1$", re.MULTILINE).search
        self.until("the store", lambda: up(self.page("/metrics")[1]) is not None, START_S)

    def until(self, what: str, holds: Callable[[], bool], timeout_s: float = 5.0) -> float:
        """Poll until it holds; seconds that it took."""
        began = time.monotonic()
        while not holds():
            waited_s = time.monotonic() - began
            assert waited_s < timeout_s, f"waited {waited_s:.1f} s for {what}:\n{self.output()}"
            time.sleep(0.02)
        return time.monotonic() - began


@contextmanager
def serving(
    folder: Path,
    *flags: str,
    policies: Path | None = None,
    transport: str = "grpcio",
    environment: Mapping[str, str] | None = None,
    grpc: str = "127.0.0.1:0",
) -> Iterator[Running]:
    """A ready service, gone when the block ends."""
    command = [
        *TIDEGATE, "serve", "--policies", str(policies or folder / "policies"), "--grpc", grpc,
        "--admin", "127.0.0.1:0", "--transport", transport, "--drain-delay", "0s", *flags,
    ]  # fmt: skip
    log = folder / "service.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    running = Running(process, log)
    try:
        running.until("the ready line", lambda: "is ready: " in running.output() or process.poll() is not None, START_S)
        found = re.search(r"is ready: grpc (\S+) admin (\S+)\n", running.output())
        assert found, running.output()
        running.grpc, running.admin = found.groups()
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def tidegate(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*TIDEGATE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "160", **(environment or {})},
    )


def check(running: Running, *arguments: str) -> str:
    done = tidegate("check", "--target", running.grpc, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
