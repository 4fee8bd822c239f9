"""What the images hold is known: each distribution by hash in its bill of materials, each under a permitted licence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.licences import LOCKS, PERMITTED, ROOT, parts, pinned, refused


def test_every_licence_in_an_image_is_permitted() -> None:
    """A new dependency under another licence is a decision, not an accident."""
    assert [each for each in parts() if refused(each.licence)] == []


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("MIT", set()),
        ("Apache-2.0 AND MIT", set()),
        ("MIT AND GPL-3.0-only", {"GPL-3.0-only"}),
        ("GPL-2.0-only OR MIT", set()),
        ("(GPL-2.0-only OR AGPL-3.0-only)", {"GPL-2.0-only"}),
        ("Proprietary", {"Proprietary"}),
        ("", {""}),
    ],
)
def test_all_of_and_and_one_of_or_must_be_permitted(expression: str, names: set[str]) -> None:
    """A licence that nobody states is none."""
    assert refused(expression) == names


def test_nothing_permitted_asks_for_the_source_of_what_links_to_it() -> None:
    """The list itself: no GPL of any kind."""
    assert not [each for each in PERMITTED if "GPL" in each]


@pytest.mark.parametrize("lock", LOCKS)
def test_bill_of_materials_names_everything_with_its_hashes(lock: str, tmp_path: Path) -> None:
    """As `make sbom` and the image target write it; the tool judges it by CycloneDX's own schema."""
    written = tmp_path / "bill.json"
    command = [
        sys.executable, "-m", "cyclonedx_py", "requirements", "--validate", "--output-reproducible",
        "--output-file", str(written), f"requirements/{lock}.txt",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, capture_output=True)

    components = json.loads(written.read_text(encoding="utf-8"))["components"]
    assert {each["name"]: each["version"] for each in components} == pinned(lock)
    told = {
        each["content"]
        for component in components
        for reference in component["externalReferences"]
        for each in reference["hashes"]
    }
    locked = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    assert told == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", locked))
