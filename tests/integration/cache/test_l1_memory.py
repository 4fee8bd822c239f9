"""The memory level's account against what a process of its own grows by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHURN = int(os.environ.get("TIDEGATE_CHURN", "200000"))
"""`make soak` asks for fifty times as many."""
MIB = 1024 * 1024


def in_process(program: str, *arguments: str) -> dict[str, int]:
    """What a program of tests/support prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"support.{program}", *arguments],
        # Measuring coverage takes memory of its own.
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "MALLOC_ARENA_MAX": "1",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("kind", "size_bytes", "entries"),
    [
        ("bytes", 10, 60_000),
        ("bytes", 1_700, 20_000),
        ("bytes", 1_000_000, 60),
        ("text", 100, 50_000),
        ("record", 0, 30_000),
    ],
)
def test_the_account_is_what_the_process_grows_by(kind: str, size_bytes: int, entries: int) -> None:
    """From ten bytes to a megabyte, within a tenth; `bench_cache_l1` has the exact figure, some 1 to 4 %."""
    answer = in_process("memory_growth", kind, str(size_bytes), str(entries))

    assert answer["entries"] == entries
    assert answer["accounted_bytes"] == pytest.approx(answer["grown_bytes"], rel=0.1)


def test_an_hour_of_traffic_shows_no_growth() -> None:
    """Compressed into seconds, by a clock that runs with the operations: after warm-up memory stays as it is.

    All budgets hold besides, and the level was full: it evicted, and expired.
    """
    answer = in_process("cache_churn", str(CHURN))

    assert answer["after_bytes"] - answer["before_bytes"] < 3 * MIB
    assert answer["used_bytes"] <= answer["most_bytes"] * 0.9
    assert answer["evicted"] > 1_000
    assert answer["expired"] > 1_000
