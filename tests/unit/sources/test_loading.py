"""Sets are read whole, decoded once, and refused whole."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.sources.frames import (
    MAX_PROBLEMS,
    SetRefused,
    WatchSettings,
    decode_frame,
    encode_frame,
    frames_of,
)
from ratelimit_service.sources.loading import Loaded, Loader, load_once
from ratelimit_service.sources.watch import read_settings, watch

_DOMAIN = "domain: {}\ndescriptors:\n- {{key: a, rate_limit: {{unit: second, requests_per_unit: {}}}}}\n"
_OPTIONS = CompileOptions()


def test_load_once_gives_a_snapshot_and_warnings(tmp_path: Path) -> None:
    """What `validate` and `explain` work on."""
    (tmp_path / "a.yaml").write_text(_DOMAIN.format("d", 1))

    snapshot, problems = load_once([str(tmp_path)], _OPTIONS)

    assert (list(snapshot.domains), problems) == ([b"d"], [])


def test_load_once_of_a_bad_set_is_empty(tmp_path: Path) -> None:
    """A good file beside a bad one is not taken; a domain in two files is told once."""
    (tmp_path / "a.yaml").write_text(_DOMAIN.format("d", 1))
    (tmp_path / "b.yaml").write_text(_DOMAIN.format("d", 1))

    snapshot, problems = load_once([str(tmp_path)], _OPTIONS)

    assert (snapshot.domains, len(problems)) == ({}, 1)


def test_a_pipe_in_the_folder_is_a_problem_and_not_a_wait(tmp_path: Path) -> None:
    """Only regular files are read."""
    os.mkfifo(tmp_path / "a.yaml")

    _, problems = load_once([str(tmp_path)], _OPTIONS)

    assert [problem.message for problem in problems] == ["cannot be read: not a regular file"]


def test_a_set_that_stays_the_same_is_not_loaded_again(tmp_path: Path) -> None:
    """None: nothing has changed; a removed file is a change."""
    path = tmp_path / "a.yaml"
    path.write_text(_DOMAIN.format("d", 1))
    os.utime(path, (0, 0))
    loader = Loader([str(tmp_path)], _OPTIONS)

    assert loader.load() is not None
    assert loader.load() is None

    path.unlink()
    assert loader.load() == Loaded((), ())
    assert loader.load() is None


def test_a_set_is_told_as_refused_with_its_errors_first() -> None:
    """A flood of warnings does not push the reason out of the list."""
    warnings = [Problem("f", "", str(number), 0, Severity.WARNING) for number in range(MAX_PROBLEMS + 5)]
    (frame,) = frames_of(Loaded((), (*warnings, Problem("f", "", "bad"))), 7)
    (size, content) = (encode_frame(frame)[:4], encode_frame(frame)[4:])

    assert isinstance(frame, SetRefused)
    assert frame.problems[0].message == "bad"
    assert frame.problems[-1].message == "and 6 more problems"
    assert decode_frame(content) == frame
    assert int.from_bytes(size, "big") == len(content)


@pytest.mark.parametrize("sent", [b"", b"\x00\x00", b"\x00\x00\x00\x09"])
def test_a_watcher_without_settings_ends(sent: bytes) -> None:
    """The serving process is gone before it said anything."""
    with pytest.raises(EOFError):
        read_settings(io.BytesIO(sent))
    watch(io.BytesIO(sent), io.BytesIO())


def test_a_watcher_sends_the_set_and_ends_with_its_input(tmp_path: Path) -> None:
    """One set, then the end of its input."""
    (tmp_path / "a.yaml").write_text(_DOMAIN.format("d", 1))
    reading, writing = os.pipe()
    os.write(writing, encode_frame(WatchSettings((str(tmp_path),), _OPTIONS, 1)))
    os.close(writing)
    sent = io.BytesIO()

    with os.fdopen(reading, "rb") as stdin:
        watch(stdin, sent)

    assert b"SetBegins" in sent.getvalue()
    assert b"SetEnds" in sent.getvalue()
