"""A disk level whose file may not grow past a limit, as on a full disk.

python -m support.full_disk FOLDER
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.l3 import L3

CAP_BYTES = 64 * 1024 * 1024
LIMIT_BYTES = 1024 * 1024


def main() -> None:
    """Fill the disk, look at what is there, make room, go on; print what was seen."""
    level = L3(Path(sys.argv[1]), CAP_BYTES)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    stored = 0
    error = ""
    while not error and stored < 10_000:
        try:
            level.put(str(stored), b"%d" % stored * 1_000)
            stored += 1
        except LevelUnavailable as failure:
            error = f"{failure.level} {failure.reason}"
    readable = sum(level.get(str(number)) == b"%d" % number * 1_000 for number in range(stored))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    again = level.put("again", b"x" * 100_000)
    level.close()
    print(json.dumps({"stored": stored, "readable": readable, "error": error, "again": again}))


if __name__ == "__main__":
    main()
