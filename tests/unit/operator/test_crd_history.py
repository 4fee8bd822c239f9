"""The kept definitions: what is added, and what is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools import crd_history

CRDS = Path(__file__).parents[3] / "crds"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the definitions and of their history."""
    return Path(shutil.copytree(CRDS, tmp_path / "crds"))


def change(crds: Path, old: str, new: str) -> None:
    """Change the definition of profiles."""
    path = crds / "cacheprofiles.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_better_sentence_is_no_new_entry(folder: Path) -> None:
    """Descriptions are not what the API server checks."""
    change(folder, "description: ", "description: Also, ")

    assert crd_history.problems(folder, folder / "history") == []


def test_a_changed_check_is_a_new_entry_beside_the_earlier_ones(folder: Path) -> None:
    """Until it is kept, lint says so; keeping it twice is keeping it once."""
    before = crd_history.entries("cacheprofiles", folder / "history")
    change(folder, "maxLength: ", "maxLength: 1")
    told = crd_history.problems(folder, folder / "history")
    for _ in range(2):
        crd_history.keep(folder, folder / "history")

    assert told == ["crds/history has no entry for the present cacheprofiles: run `make generate`"]
    assert crd_history.problems(folder, folder / "history") == []
    assert crd_history.entries("cacheprofiles", folder / "history")[:-1] == before


def test_the_first_definitions_begin_a_history(folder: Path) -> None:
    """Where there is none yet."""
    crd_history.keep(folder, folder / "new")

    assert [path.name[:-14] for path in sorted((folder / "new").iterdir())] == [
        "cacheprofiles-001",
        "ratelimitpolicies-001",
    ]


def test_an_entry_that_was_edited_or_removed_is_noticed(folder: Path) -> None:
    """By the digest and the number in its name."""
    first, second = crd_history.entries("ratelimitpolicies", folder / "history")[:2]
    second.write_text(second.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    edited = crd_history.problems(folder, folder / "history")
    first.unlink()
    removed = crd_history.problems(folder, folder / "history")

    assert f"{second.name} was edited: entries stay as they were" in edited
    assert f"{second.name} is not entry 001 of ratelimitpolicies: none is ever removed or renamed" in removed
