"""Opens the database's file only if it is sound.

lmdb maps the file into memory and believes it: a truncated or overwritten file can end the process with a signal.
So a file that was not closed in order, or was touched since, is walked through byte by byte first (`lmdb.verify`,
about 10 ms per MB, which never maps it). What is unsound is moved aside, and the cache begins anew.

The folder belongs to one process at a time, which holds a lock on a file in it as long as it lives.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from ratelimit_service.cache.errors import LevelUnavailable

__all__ = ["Folder"]

_DATA: Final = "data.mdb"
_MAPPED_LOCK: Final = "lock.mdb"
_OWNER: Final = "owner.lock"
_CLOSED: Final = "closed.json"
_ASIDE: Final = "data.mdb.unsound"


class _Closed(msgspec.Struct, frozen=True):
    """What the file looked like when it was closed in order.

    Attributes:
        size_bytes, modified_ns: Of the file.
        sealing: Whether its records are sealed.
    """

    size_bytes: int
    modified_ns: int


class Folder:
    """The folder of a disk level: claims it, judges what is in it.

    Raises:
        LevelUnavailable: It cannot be made or written, or another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Others of the machine have no business in a cache of sessions.
            path.chmod(0o700)
            self._owner = os.open(path / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LevelUnavailable("l3", f"{path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._owner)
            raise LevelUnavailable("l3", f"{path}: another process has it") from error

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self._owner)

    def find_fault(self) -> str | None:
        """What is wrong with the file there; None if it is sound or there is none."""
        data = self.path / _DATA
        try:
            found = data.stat()
        except FileNotFoundError:
            return None
        closed = self._read_closed()
        (self.path / _CLOSED).unlink(missing_ok=True)
        if closed == _Closed(found.st_size, found.st_mtime_ns):
            return None
        return _verify(data)

    def _read_closed(self) -> _Closed | None:
        try:
            return msgspec.json.decode((self.path / _CLOSED).read_bytes(), type=_Closed)
        except (OSError, msgspec.MsgspecError):
            return None

    def note_closed(self) -> None:
        """Note that the file was closed in order, for the next to open it. A failure costs the next one time only."""
        try:
            found = (self.path / _DATA).stat()
            (self.path / _CLOSED).write_bytes(msgspec.json.encode(_Closed(found.st_size, found.st_mtime_ns)))
        except OSError:
            return

    def move_aside(self) -> Path:
        """Make way for a new file; the unsound one is kept, in place of an earlier one."""
        aside = self.path / _ASIDE
        (self.path / _DATA).replace(aside)
        (self.path / _MAPPED_LOCK).unlink(missing_ok=True)
        return aside

    def remove(self) -> None:
        """Delete the file."""
        for name in (_DATA, _MAPPED_LOCK, _ASIDE, _CLOSED):
            (self.path / name).unlink(missing_ok=True)


def _verify(data: Path) -> str | None:
    """What a walk through the file finds; None for nothing."""
    from lmdb import verify  # noqa: PLC0415 - optional

    try:
        # It has no types.
        faults: list[str] = verify.verify(str(data), subdir=False)  # type: ignore[no-untyped-call]
    except (verify.VerifyError, OSError) as error:
        return str(error)
    return None if not faults else f"{len(faults)} faults, the first: {faults[0]}"
