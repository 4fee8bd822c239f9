"""The policy sets of the golden files: what each holds, and what `tidegate render` makes of it."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from ratelimit_service.cli.render import render

FOLDER = Path(__file__).parent.parent / "unit" / "policy" / "render"
SETS = sorted((FOLDER / "sets").glob("*.yaml"))
NAMES = [path.stem for path in SETS]


def gateway_of(path: Path) -> str:
    """`namespace/name` of the set's Gateway, empty: its policies have a domain."""
    found = re.search(r"kind: Gateway\nmetadata: \{name: (\S+), namespace: (\S+)\}", path.read_text(encoding="utf-8"))
    return f"{found[2]}/{found[1]}" if found else ""


def rendered(path: Path, *arguments: str, command: str = "envoy") -> tuple[str, str]:
    """(standard output, what was told), the path of the set left out."""
    gateway = gateway_of(path)
    more = ["--gateway", gateway] if gateway else []
    result = CliRunner().invoke(render, [command, str(path), *more, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr.replace(f"{path.parent}/", "")


def golden_text(stdout: str, stderr: str) -> str:
    """A golden file: what was told as comments, then what was made."""
    return "".join(f"# {line}\n" for line in stderr.splitlines()) + stdout
