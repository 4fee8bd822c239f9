"""Whole manifests, good and bad; the headers of the bad ones say what the answer is.

The same files go to a real API server: `refused-by` says who refuses there (`schema`: own words, same path;
`cel`: same words, same path; `server`: before the schema; `decoder`: only we do).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.problems import Severity

SAMPLES = Path(__file__).parent / "samples"
BAD = sorted(SAMPLES.glob("bad/*.yaml"))
GOOD = sorted(SAMPLES.glob("good/*.yaml"))


def header(path: Path) -> dict[str, str]:
    """What the first lines of a sample say of it: `path`, `message`, `refused-by`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# "))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_manifest_gives_exactly_its_problem(path: Path) -> None:
    """Path and words are those of the header, nothing else is told, and no object comes out."""
    said = header(path)

    objects, problems = decode([SourceFile(path.name, path.read_bytes())])

    errors = [(each.path, each.message) for each in problems if each.severity is Severity.ERROR]
    assert errors == [(said["path"], said["message"])]
    assert objects == []


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_manifest_is_decoded(path: Path) -> None:
    """It gives one object and no error."""
    objects, problems = decode([SourceFile(path.name, path.read_bytes())])

    assert [each for each in problems if each.severity is Severity.ERROR] == []
    assert len(objects) == 1


def test_there_are_enough_samples() -> None:
    """The folder was found and holds the table."""
    assert len(BAD) >= 100
    assert len(GOOD) >= 25


def test_each_sample_says_who_refuses_it() -> None:
    """The header is complete, so that the same file can be put to a real API server."""
    assert {header(path)["refused-by"] for path in BAD} == {"schema", "cel", "server", "decoder"}
