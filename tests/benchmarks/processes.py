"""What a process has used, as the kernel counts it, and where it may run."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGES_PER_MIB = 2**20 / os.sysconf("SC_PAGE_SIZE")


class Cores(NamedTuple):
    """One core for the server and one for the load; None: this machine has no two cores, so nothing is pinned."""

    server: int | None
    load: int | None


def cores() -> Cores:
    """The first and the last core that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[-1]) if len(usable) > 1 else Cores(None, None)


def pinned(core: int | None) -> list[str]:
    """What goes in front of a command to run it on `core` alone."""
    return ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []


def when_idle() -> list[str]:
    """What goes in front of a command so that it runs only when nothing else wants its core.

    A process of low priority is not enough: once it has the core it keeps it for milliseconds, and whatever measures on
    that core takes them for somebody's latency.
    """
    return ["chrt", "--idle", "0"] if shutil.which("chrt") else ["nice", "-n", "19"]


def cpu_s(pid: int) -> float:
    """Processor time of all threads of a process so far, user and system, in steps of 10 ms; children apart."""
    # The name in parentheses may hold spaces; utime and stime are the 12th and 13th field behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def rss_mib(pid: int) -> float:
    """Resident memory of a process now."""
    return round(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) / _PAGES_PER_MIB, 1)


def peak_rss_mib(pid: int) -> float:
    """The most memory of a process that was ever resident."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return round(int(found[1]) / 1024, 1)


def children_rss_mib(pid: int) -> float:
    """Resident memory of a process's children now, pages that they share counted for each."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return round(sum(rss_mib(int(child)) for child in children), 1)


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, *, timeout_s: float = 10) -> None:
    """Until something listens there.

    Raises:
        TimeoutError: Nothing does in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")
