"""Sets at rest: the last good one, which this replica keeps, and the one that the operator keeps for it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from ratelimit_service.wire.xds.snapshot_part import PART_SUFFIX, StoredSet, decode_parts, encode_parts

_NAME: Final = f"last{PART_SUFFIX}"
_MOST_BYTES: Final = 2**31


class Found(msgspec.Struct, frozen=True):
    """A set that was found in a folder."""

    stored: StoredSet
    folder: str


def find_sets(folders: list[Path], type_url: str) -> tuple[list[Found], list[str]]:
    """The whole sets of this type in the folders, newest first, and what is wrong with the rest.

    A folder that is not there holds nothing: an optional volume, or a first start.
    """
    found: list[Found] = []
    problems: list[str] = []
    for folder in folders:
        contents = []
        for path in _parts(folder):
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
        stored, told = decode_parts(contents)
        problems += [f"{folder}: {problem}" for problem in told]
        if stored is not None and stored.type_url == type_url:
            found.append(Found(stored, str(folder)))
        elif stored is not None:
            problems.append(f"{folder}: holds resources of type {stored.type_url}, not {type_url}")
    return sorted(found, key=lambda each: -each.stored.compiled_at_us), problems


def keep_set(folder: Path, stored: StoredSet) -> None:
    """Write a set in place of the one before, whole or not at all; raises OSError."""
    (content,) = encode_parts(stored, most_bytes=_MOST_BYTES, most_parts=1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NAME
    draft = folder / f".{_NAME}.{os.getpid()}"
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def _parts(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in paths if path.name.endswith(PART_SUFFIX) and not path.name.startswith(".")]
