"""Facts about the machine that a figure was measured on, and the file that both are kept in."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
OUT = Path("build/bench")
"""Where figures go unless told otherwise."""
LOAD_BEFORE = os.getloadavg()[0]
"""What else ran here in the minute before: processes that wanted a core. Latencies of a busy machine are its own."""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def facts() -> dict[str, object]:
    """What a reader needs to compare a figure with one of another machine."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    revision = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "load_before": round(LOAD_BEFORE, 2),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "revision": revision.stdout.strip() or "uncommitted",
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write(target: Path, figures: Mapping[str, object]) -> None:
    """Keep figures with the facts of this machine, as JSON."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"machine": facts(), **figures}, indent=1) + "\n")
