"""Hot keys in a file, from one run of a replica to the next.

The file holds counted values, so only its owner may read it. A file that is not there, old, or no such file at all is
as good as none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ratelimit_service.quota.leases.warming import HotKey

MOST_HOT_KEYS: Final = 10_000
"""Keys that are remembered: more would take longer to lease than to ask for."""

LASTS_US: Final = 3_600_000_000
"""Age from which on a file says nothing of what is hot."""

_MOST_BYTES: Final = 16 * 2**20
_FORM: Final = 1


class _Content(msgspec.Struct, frozen=True, array_like=True):
    form: int
    written_us: int
    keys: list[HotKey]


def write_hot_keys(path: Path, keys: Sequence[HotKey], wall_us: int) -> None:
    """Put keys in the place of what the file held.

    Raises:
        OSError: It cannot be written; what it held stays.
    """
    content = msgspec.msgpack.encode(_Content(_FORM, wall_us, list(keys[:MOST_HOT_KEYS])))
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def read_hot_keys(path: Path, wall_us: int) -> list[HotKey]:
    """The keys that a file holds, none where it is of no use."""
    try:
        with path.open("rb") as file:
            content = msgspec.msgpack.decode(file.read(_MOST_BYTES), type=_Content)
    except (OSError, msgspec.DecodeError):
        return []
    if content.form != _FORM or not 0 <= wall_us - content.written_us < LASTS_US:
        return []
    return content.keys[:MOST_HOT_KEYS]
