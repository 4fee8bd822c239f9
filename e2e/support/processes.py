"""Real processes under test: started with their output in a file, awaited with a deadline, ended by their id."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

STOP_S = 30.0
"""How long a process may take to end by itself after SIGTERM; then the test fails."""


class Process:
    """A running process whose output is in `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("wb") as out:
            self._popen = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
            )
        self.pid = self._popen.pid

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """The exit code."""
        return self._popen.wait(timeout=timeout_s)

    @property
    def exited(self) -> bool:
        return self._popen.poll() is not None

    def await_(self, what: str, look: Callable[[], Found | None], timeout_s: float = 20.0) -> Found:
        """Poll until `look` finds something; fail with the process's output when it ends or takes too long."""
        return eventually(what, look, timeout_s, alive=lambda: not self.exited, explain=self.output)

    def stop(self) -> None:
        """End it whatever state it is in; a stopped (SIGSTOP) one is woken first."""
        if not self.exited:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            raise


@contextmanager
def running(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """A process that is gone when the block ends."""
    process = Process(command, log, environment)
    try:
        yield process
    finally:
        process.stop()


def eventually(
    what: str,
    look: Callable[[], Found | None],
    timeout_s: float = 10.0,
    *,
    alive: Callable[[], bool] = lambda: True,
    explain: Callable[[], str] = str,
) -> Found:
    """Poll until `look` returns something else than None or False; the failure says what was awaited."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert alive(), f"ended while waiting for {what}:\n{explain()}"
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}:\n{explain()}"
        time.sleep(0.02)
