"""A disk level on a file system that is read-only when it is opened, and writable again later.

unshare -rm python -m support.read_only_disk FOLDER

The mount is of a namespace of this process alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.l3 import L3

CAP_BYTES = 16 * 1024 * 1024
KEYS = 100


def failure_of(call: Callable[[], object]) -> str:
    """What a call raises; empty if it does not."""
    try:
        call()
    except LevelUnavailable as error:
        return str(error)
    return ""


def readable(level: L3) -> int:
    """How many of the keys have their value."""
    return sum(level.get(str(number)) == b"%d" % number * 500 for number in range(KEYS))


def main() -> None:
    """Fill it, take the right to write away before it is opened again, give it back; print what was seen."""
    folder = Path(sys.argv[1])
    seen: dict[str, object] = {}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], check=True)
    with L3(folder, CAP_BYTES) as level:
        level.put_many([(str(number), b"%d" % number * 500, 2**62) for number in range(KEYS)])
        seen["before"] = readable(level)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    seen["opening"] = failure_of(lambda: L3(folder, CAP_BYTES))
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    with L3(folder, CAP_BYTES) as level:
        seen["after"] = readable(level)
        seen["stored"] = level.put("again", b"x")
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
