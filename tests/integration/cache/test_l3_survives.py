"""The disk level through kills, a full and a read-only disk, in processes of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("TIDEGATE_KILLS", "200"))
"""`make soak` asks for thousands."""


def run(module: str, *arguments: str, within: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run a program of tests/support; return what it prints."""
    done = subprocess.run(
        [*within, sys.executable, "-m", f"support.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Killed at random points, the level opens again, has every acknowledged value or a later one, and no wrong one."""
    answer = run("disk_killer", str(tmp_path), str(KILLS), str(random.randrange(2**32)))

    assert answer["wrong"] == []
    assert answer["keys"] == 50


def test_a_full_disk_is_an_unavailable_level_and_nothing_is_lost(tmp_path: Path) -> None:
    """What was stored stays readable, and when there is room again puts are stored again."""
    answer = run("full_disk", str(tmp_path))

    assert answer["error"].startswith("l3 ")
    assert answer["readable"] == answer["stored"] > 100
    assert answer["again"]


def may_mount() -> bool:
    """Whether this user gets a mount namespace."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-rm", "true"], check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs unshare (util-linux) and the right to make a namespace")
def test_a_read_only_disk_is_an_unavailable_level_and_nothing_is_lost(tmp_path: Path) -> None:
    """It says so when it is opened; once it can be written again, all is there and puts are stored."""
    answer = run("read_only_disk", str(tmp_path), within=("unshare", "-rm"))

    assert "Read-only file system" in answer["opening"]
    assert (answer["before"], answer["after"], answer["stored"]) == (100, 100, True)
