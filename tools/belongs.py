"""Find what has no place in the repository: paths of one machine, addresses of package registries.

Exits with 1 and every finding.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ADDRESS = re.compile(rb"https?://[a-z.-]*(?:py" rb"pi|python" rb"hosted|npm" rb"js|go" rb"proxy|mav" rb"en)[a-z.-]*")
MACHINE = re.compile(rb"(?<![\w.])/(?:root|home/[a-z]+|work|Users/[a-z]+)/")
MOST_BYTES = 1_000_000


def findings() -> list[str]:
    """Every tracked line that names a machine or a registry."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.split(b"\0")
    found = []
    for name in (item.decode() for item in names if item):
        path = ROOT / name
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            for what, pattern in (("an address of a registry", ADDRESS), ("a path of one machine", MACHINE)):
                if pattern.search(line):
                    found.append(f"{name}:{number}: {what}")
    return found


def main() -> int:
    """Print the findings; 1 if there are any."""
    found = findings()
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
