"""The system clock of one server process, set as an administrator would set it: by a library that is loaded first."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

MISSING: Final = "a C compiler is missing: install the packages gcc and libc6-dev (Debian, Ubuntu), or any cc"
_SOURCE: Final = Path(__file__).with_name("server_clock.c")


class ServerClock:
    """Right at first; a process with `environment` goes by it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.clock"
        self._file.write_bytes(struct.pack("=q", 0))
        self._library = _compiled(folder)
        self._step_us = 0

    @property
    def environment(self) -> Mapping[str, str]:
        """What the process is started with."""
        return {**os.environ, "LD_PRELOAD": str(self._library), "TIDEGATE_TEST_CLOCK": str(self._file)}

    def step(self, by_us: int) -> None:
        """Set it on, or back where that is below 0; at once, also for a process that runs."""
        self._step_us += by_us
        # In place: the process has mapped it.
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", self._step_us))


def _compiled(folder: Path) -> Path:
    """The library; made once for a folder."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip(MISSING)
    library = folder / "server_clock.so"
    if not library.exists():
        subprocess.run([compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
    return library
