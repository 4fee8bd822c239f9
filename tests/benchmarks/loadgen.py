"""Build and run the load generator (`tests/benchmarks/loadgen`, Go)."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "loadgen"
CACHE = Path.home() / ".cache" / "tidegate" / "bin"


class NoGoCompiler(Exception):
    """There is no Go compiler to build the load generator with."""


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


def run(arguments: Sequence[str], *, core: int | None, timeout_s: float) -> dict[str, float]:
    """One run, pinned to `core`; its figures. A call that was never answered fails the run."""
    pin = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
    command = [*pin, str(binary()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"loadgen {' '.join(arguments)}: {done.stderr.strip()}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
