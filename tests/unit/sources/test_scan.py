"""Which files are policy files."""

from __future__ import annotations

from pathlib import Path

from ratelimit_service.sources.scan import scan


def _names(folder: Path) -> list[str]:
    return [Path(stamp.name).relative_to(folder).as_posix() for stamp in scan([str(folder)]).files]


def test_folders_are_read_to_the_bottom_in_sorted_order(tmp_path: Path) -> None:
    """YAML and JSON below a folder, by path; nothing else."""
    (tmp_path / "b").mkdir()
    for name in ("c.yaml", "b/a.yml", "a.json", "notes.txt", ".hidden.yaml"):
        (tmp_path / name).write_text("")

    assert _names(tmp_path) == ["a.json", "b/a.yml", "c.yaml"]


def test_a_mounted_configmap_is_read_once(tmp_path: Path) -> None:
    """Files are found through the links beside `..data`, not through it as well."""
    (tmp_path / "..2026_01").mkdir()
    (tmp_path / "..2026_01/a.yaml").write_text("")
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    assert _names(tmp_path) == ["a.yaml"]


def test_a_file_reached_in_two_ways_is_read_once(tmp_path: Path) -> None:
    """A folder and a file in it, both named."""
    (tmp_path / "a.yaml").write_text("")

    assert len(scan([str(tmp_path), str(tmp_path / "a.yaml")]).files) == 1


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """A folder that links to its parent is not read for ever."""
    (tmp_path / "a.yaml").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)

    assert _names(tmp_path) == ["a.yaml"]


def test_a_file_named_itself_may_have_any_name(tmp_path: Path) -> None:
    """Only folders are filtered."""
    (tmp_path / ".policies").write_text("")

    assert len(scan([str(tmp_path / ".policies")]).files) == 1


def test_a_path_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """It is named with the system's words."""
    (problem,) = scan([str(tmp_path / "none")]).problems

    assert str(problem) == f"{tmp_path}/none: cannot be read: No such file or directory"


def test_a_link_to_nothing_is_a_problem(tmp_path: Path) -> None:
    """A policy must not go missing in silence."""
    (tmp_path / "a.yaml").symlink_to("gone.yaml")
    (tmp_path / "b.txt").symlink_to("gone.txt")

    assert [problem.message for problem in scan([str(tmp_path)]).problems] == ["cannot be read: the link leads nowhere"]


def test_links_in_a_knot_are_a_problem(tmp_path: Path) -> None:
    """A link to itself cannot be followed."""
    (tmp_path / "a.yaml").symlink_to("a.yaml")

    assert [problem.message for problem in scan([str(tmp_path)]).problems] == [
        "cannot be read: Too many levels of symbolic links"
    ]
