"""asyncio's side of a connection, without a socket."""

from __future__ import annotations

import asyncio

from ratelimit_service.algorithms.limit import Instant


class RecordingSocket(asyncio.Transport):
    """Keeps what is written, write by write; `state` says how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.state = "open"
        self.reads = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who is called does not matter here."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.state != "open"

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def take(self) -> bytes:
        """What was written since the last look."""
        data = b"".join(self.writes)
        self.writes.clear()
        return data


class HandClock:
    """Boot and wall time that a test moves; counts its readings."""

    def __init__(self) -> None:
        self.now_us = 10_000_000
        self.readings = 0

    def __call__(self) -> Instant:
        self.readings += 1
        return Instant(self.now_us, self.now_us)
