"""`make demo` shows what it promises and ends by itself."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_demo_shows_envoy_being_limited_and_ends() -> None:
    """Plain lines without a terminal: what was let through, what was limited, with headers; exit code 0."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    took_s = time.monotonic() - began

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("let through 200") == 31
    assert done.stdout.count("limited     429") == 9
    assert 'x-ratelimit-limit: 10, 10;w=60;name="free"' in done.stdout
    assert "done: limits held" in done.stdout
    assert took_s < 20
