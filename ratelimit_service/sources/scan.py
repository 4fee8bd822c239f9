"""Which policy files there are, and whether they have changed since.

Polling, because it is right everywhere: inotify misses network file systems, and the symlink swap of a mounted
ConfigMap shows up there as an event on a directory that no file of ours is in.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ratelimit_service.policy.problems import Problem

SUFFIXES: Final = (".yaml", ".yml", ".json")
"""Names of files that are read in folders; a file that is named itself may have any name."""

MAX_FILES: Final = 20_000
"""Most files of a set: a guard against `--policies /`."""


class FileStamp(msgspec.Struct, frozen=True):
    """A file as `stat` sees it; two stamps that are equal mean the same content but within one clock tick."""

    name: str
    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


class Scan(msgspec.Struct, frozen=True):
    """All files of a set, in order of sorted path, and what could not be looked at."""

    files: tuple[FileStamp, ...]
    problems: tuple[Problem, ...]


def scan(paths: Sequence[str]) -> Scan:
    """Look at every path: a file is taken as it is, a folder with all that is below it.

    In folders, names that begin with a dot are left out, at every level: editors' files, and the `..data` and
    `..<time>` of a mounted ConfigMap, whose files are reached through the links beside them, once.
    Links are followed. A file that is reached in two ways is read once, under the name that sorts first.
    """
    found: dict[str, FileStamp] = {}
    problems: list[Problem] = []
    for path in paths:
        _look(path, found, problems)
    unique: dict[tuple[int, int], FileStamp] = {}
    for name in sorted(found):
        stamp = found[name]
        unique.setdefault((stamp.device, stamp.inode), stamp)
    if len(unique) > MAX_FILES:
        problems.append(Problem(paths[0], "", f"{len(unique)} policy files; at most {MAX_FILES} are read"))
        return Scan((), tuple(problems))
    return Scan(tuple(unique.values()), tuple(problems))


def _look(path: str, found: dict[str, FileStamp], problems: list[Problem]) -> None:
    try:
        status = Path(path).stat()
    except OSError as error:
        problems.append(Problem(path, "", f"cannot be read: {reason(error)}"))
        return
    if not _is_folder(status):
        found[path] = _stamp(path, status)
        return
    pending = [path]
    visited = {(status.st_dev, status.st_ino)}
    while pending and len(found) <= MAX_FILES:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    _look_at_entry(entry, found, pending, visited, problems)
        except OSError as error:
            problems.append(Problem(folder, "", f"the folder cannot be read: {reason(error)}"))


def _look_at_entry(
    entry: os.DirEntry[str],
    found: dict[str, FileStamp],
    pending: list[str],
    visited: set[tuple[int, int]],
    problems: list[Problem],
) -> None:
    if entry.name.startswith("."):
        return
    wanted = entry.name.endswith(SUFFIXES)
    try:
        status = entry.stat()
    except FileNotFoundError:
        # Removed since the folder was listed, or a link to nothing: the latter would be a policy silently missing.
        if wanted and entry.is_symlink():
            problems.append(Problem(entry.path, "", "cannot be read: the link leads nowhere"))
        return
    except OSError as error:
        problems.append(Problem(entry.path, "", f"cannot be read: {reason(error)}"))
        return
    if _is_folder(status):
        identity = (status.st_dev, status.st_ino)
        if identity not in visited:
            visited.add(identity)
            pending.append(entry.path)
    elif wanted:
        found[entry.path] = _stamp(entry.path, status)


def _is_folder(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode)


def _stamp(name: str, status: os.stat_result) -> FileStamp:
    return FileStamp(name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def reason(error: OSError) -> str:
    """Why, in the system's words: `No such file or directory`."""
    return error.strerror or type(error).__name__
