"""Hold modules to their size and modules' names to the domain. Exit 1 with every finding.

A module has at most 600 lines, a longer one needs its reason in LISTED.
No name is a drawer or a module of the standard library.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOTS = ("ratelimit_service", "operator/ratelimit_operator", "tools", "tests", "e2e", "examples")
MOST_LINES = 600
LISTED: dict[str, str] = {}
"""Path → why it is longer than 600 lines."""
DRAWERS = frozenset({"utils", "util", "helpers", "common", "misc"})


def findings(root: Path) -> list[str]:
    """Every violation below `root`, one line each."""
    found = []
    for folder in ROOTS:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MOST_LINES and name not in LISTED:
                found.append(f"{name}: {lines} lines, more than {MOST_LINES}: split it, or list it with its reason")
            if path.stem in DRAWERS or path.parent.name in DRAWERS:
                found.append(f"{name}: name the concept, not a drawer")
            if folder.startswith(("ratelimit_service", "operator")) and path.stem in sys.stdlib_module_names:
                found.append(f"{name}: named like a module of the standard library")
    return found


def main() -> int:
    """Print the findings; 1 if there are any."""
    found = findings(Path(__file__).parent.parent)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
