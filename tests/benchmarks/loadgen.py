"""Build and run the load generator (`tests/benchmarks/loadgen`, Go)."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.benchmarks.processes import pinned

SOURCES = Path(__file__).parent / "loadgen"
CACHE = Path.home() / ".cache" / "tidegate" / "bin"


class NoGoCompiler(Exception):
    """There is no Go compiler to build the load generator with."""


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the generator saw. Verdicts and latencies are of the measured time, -1: there is no latency.

    Attributes:
        calls_per_s: Answered in the measured time.
        answered: All calls, those of the warm-up included.
        ok, over, unknown: Calls by verdict.
        grpc_errors: Calls that ended in another status than OK.
        resets: Calls that the server reset.
        failed_connections: Ended before their time.
    """

    calls_per_s: int
    answered: int
    ok: int
    over: int
    unknown: int
    grpc_errors: int
    resets: int
    failed_connections: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def binary() -> Path:
    """The built generator; built once per content of its sources, cached outside the repository."""
    content = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    target = CACHE / f"loadgen-{hashlib.sha256(content).hexdigest()[:12]}"
    if not target.exists():
        go = shutil.which("go")
        if go is None:
            raise NoGoCompiler("the load generator needs Go 1.19 or newer: install it (Debian: golang-go)")
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([go, "build", "-trimpath", "-o", str(target), "."], cwd=SOURCES, check=True)
    return target


def run(arguments: Sequence[str], *, core: int | None, timeout_s: float) -> Figures:
    """One run, pinned to `core`; its figures. A call that was never answered fails the run."""
    command = [*pinned(core), str(binary()), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"loadgen {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return msgspec.json.decode(done.stdout, type=Figures)
