"""Run h2load (nghttp2), which sends one fixed request, and read what it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from ratelimit_service.wire.grpc.calls import frame_message
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from tests.benchmarks.processes import pinned

PATH = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
BODY = frame_message(encode_request(Request(b"bench", (Descriptor(((b"user", b"u0000001"),)),))))
MISSING = "needs h2load and nghttpd: install them (Debian: nghttp2-client, nghttp2-server)"


class Figures(msgspec.Struct, frozen=True):
    """What it saw; `failed` counts what did not end with 200, or did not end.

    Latency is from the request's first byte to the response's end, of the measured time; the mean is all it tells.
    """

    calls_per_s: float
    succeeded: int
    failed: int
    mean_ms: float
    max_ms: float


def is_here() -> bool:
    """Whether both programs can be run."""
    return shutil.which("h2load") is not None and shutil.which("nghttpd") is not None


def run(port: int, *, calls: int, connections: int, streams: int, core: int | None) -> Figures:
    """So many calls; connections that do not get one are opened all the same."""
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        body.write_bytes(BODY)
        command = [
            *pinned(core), "h2load", "-n", str(calls), "-c", str(connections), "-m", str(streams), "-d", str(body),
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{PATH}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return read(done.stdout, calls)


def read(text: str, calls: int) -> Figures:
    """Take the figures out of h2load's report."""
    rate = re.search(r"finished in \S+, ([\d.]+) req/s", text)
    counts = re.search(r"(\d+) succeeded, (\d+) failed", text)
    ok = re.search(r"status codes: (\d+) 2xx", text)
    times = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", text)
    if not (rate and counts and ok and times):
        raise RuntimeError(f"h2load says what cannot be read:\n{text}")
    succeeded = min(int(counts[1]), int(ok[1]))
    return Figures(float(rate[1]), succeeded, calls - succeeded, _ms(times[3]), _ms(times[2]))


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return round(float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], 3)
