"""What the README shows of the example policies."""

from __future__ import annotations

import re
from pathlib import Path

from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.compile import compile as compile_set
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_what_make_run_prints_of_the_examples() -> None:
    """Domains, rules and the version that these policies have on every machine."""
    files = sorted((ROOT / "examples/policies").rglob("*.yaml"))
    objects, problems = decode([SourceFile(str(path), path.read_bytes()) for path in files])
    snapshot, conflicts = compile_set(objects, CompileOptions())
    shown = re.search(
        r"^policies: (\d+) domains, (\d+) rules, version (\w+)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )

    assert shown is not None
    assert (int(shown[1]), int(shown[2]), shown[3]) == (
        len(snapshot.domains),
        sum(len(domain.rules) for domain in snapshot.domains.values()),
        snapshot.version,
    )
    assert problems == conflicts == []
