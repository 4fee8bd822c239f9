"""The documentation builds as a site, strictly: a link that leads nowhere fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every page, every link between pages, every anchor."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").is_file()


def test_the_workflows_hold_no_known_danger() -> None:
    """zizmor's audits, offline: pinned actions, least permissions, no text of others in scripts."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "zizmor"), "--offline", "--quiet", str(ROOT / ".github" / "workflows")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
