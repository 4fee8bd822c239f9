"""Sets at rest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ratelimit_service.sources.xds.storage import find_sets, keep_set
from ratelimit_service.wire.xds.snapshot_part import StoredSet, encode_parts

SET = StoredSet("v1", 5, "t", (b"a", b"b"))


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    """In a folder that was not there, and again in place of the one before, with nothing left beside it."""
    folder = tmp_path / "deep" / "kept"
    keep_set(folder, SET)
    keep_set(folder, StoredSet("v2", 6, "t", (b"c",)))

    (found,), problems = find_sets([folder], "t")
    assert found.stored == StoredSet("v2", 6, "t", (b"c",))
    assert problems == []
    assert [path.name for path in folder.iterdir()] == ["last.snapshot.gz"]


def test_the_newer_comes_first_and_the_rest_is_told(tmp_path: Path) -> None:
    """Folders that are not there hold nothing; another type, a broken part and one that cannot be read are told."""
    folders = [tmp_path / name for name in ("old", "new", "other", "broken", "absent")]
    keep_set(folders[0], SET)
    keep_set(folders[1], StoredSet("v2", 6, "t", ()))
    keep_set(folders[2], StoredSet("v3", 9, "u", ()))
    folders[3].mkdir()
    (folders[3] / "0.snapshot.gz").write_bytes(b"noise")
    (folders[3] / "1.snapshot.gz").mkdir()
    (folders[3] / "notes.txt").write_text("passed over")

    found, problems = find_sets(folders, "t")

    assert [each.stored.version for each in found] == ["v2", "v1"]
    assert len(problems) == 3
    assert problems[0].endswith("holds resources of type u, not t")


def test_parts_in_several_files_are_one_set(tmp_path: Path) -> None:
    """As the bootstrap's ConfigMaps are projected."""
    stored = StoredSet("v", 1, "t", tuple(hashlib.sha256(bytes([number])).digest() for number in range(40)))
    parts = encode_parts(stored, most_bytes=250, most_parts=16)
    assert len(parts) > 1
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.snapshot.gz").write_bytes(part)

    (found,), _ = find_sets([tmp_path], "t")

    assert sorted(found.stored.resources) == sorted(stored.resources)


def test_a_set_that_cannot_be_kept_leaves_the_one_before(tmp_path: Path) -> None:
    """A file stands where the folder should be; a folder where the file should be."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        keep_set(tmp_path / "file", SET)
    (tmp_path / "last.snapshot.gz").mkdir()
    with pytest.raises(OSError, match=r"last\.snapshot"):
        keep_set(tmp_path, SET)

    assert [path.name for path in tmp_path.glob(".*")] == []
