"""The programs in `examples/library` run, and say what they are there to show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "library"


def output_of(name: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_says_the_same_before_and_after_moving_over() -> None:
    """On the old names and on the new ones."""
    before = output_of("before.py")

    assert before == "allowed 1\nallowed 0\ndenied 0\n"
    assert output_of("after.py") == before


def test_every_method_is_shown() -> None:
    """And none of them fails."""
    program = (EXAMPLES / "every_method.py").read_text(encoding="utf-8")
    methods = (
        "check_rate_limit",
        "check_multiple_rate_limits",
        "reset_rate_limit",
        "warmup_rate_limit_keys",
        "warmup_high_traffic_keys",
        "get_rate_limiting_stats",
        "get_health",
        "get_metrics",
        "generate_optimized_key",
        "calculate_optimal_ttl",
        "align_to_fixed_window",
    )

    assert [name for name in methods if name not in program] == []
    assert output_of("every_method.py").startswith("one check: True 99 left of 100\n")
