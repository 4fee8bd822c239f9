"""From paths to plans: scan, read, decode, compile. Blocking; it runs in a child process or in a command."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.compile import plan_set, refuses
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import MAX_FILE_BYTES, SourceFile
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import DomainPlan, assemble
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.sources.scan import FileStamp, Scan, reason, scan

_FRESH_NS: Final = 2_000_000_000
"""A file changed this recently may change again within the tick of its time stamp, so its content is compared."""

_MAX_TRIES: Final = 4
"""Readings of a set that changes while it is read, before it is taken as it is until the next poll."""


class Loaded(msgspec.Struct, frozen=True):
    """A set as it was read.

    Attributes:
        plans: Empty when the problems refuse the set.
        problems: Warnings, and errors that refuse it.
    """

    plans: tuple[DomainPlan, ...]
    problems: tuple[Problem, ...]

    @property
    def refused(self) -> bool:
        """Whether the set must not be applied."""
        return refuses(self.problems)


class _CachedFile(msgspec.Struct, frozen=True):
    stamp: FileStamp
    content: bytes
    objects: tuple[object, ...]
    problems: tuple[Problem, ...]


class Loader:
    """Loads one set again and again; a file that stays the same is decoded once."""

    def __init__(self, paths: Sequence[str], options: CompileOptions) -> None:
        self._paths = tuple(paths)
        self._options = options
        self._cache: dict[str, _CachedFile] = {}
        self._read_problems: tuple[Problem, ...] = ()
        self._scan: Scan | None = None

    def load(self) -> Loaded | None:
        """The set as it is now; None: nothing has changed since the last call."""
        first = self._scan is None
        changed = first
        for _ in range(_MAX_TRIES):
            seen = scan(self._paths)
            if seen == self._scan and not self._is_fresh(seen):
                break
            changed = self._read(seen) or changed
            # The files of a set belong together: one that was swapped meanwhile is read again from the start.
            if scan(self._paths) == seen:
                break
        return self._compile() if changed else None

    def _is_fresh(self, seen: Scan) -> bool:
        now_ns = time.time_ns()
        return any(now_ns - stamp.changed_ns < _FRESH_NS for stamp in seen.files)

    def _read(self, seen: Scan) -> bool:
        """Bring the cache up to date; True: what it holds is different now."""
        problems = list(seen.problems)
        before = (tuple(self._cache), self._read_problems)
        changed = False
        cache: dict[str, _CachedFile] = {}
        now_ns = time.time_ns()
        for stamp in seen.files:
            known = self._cache.get(stamp.name)
            if known is not None and known.stamp == stamp and now_ns - stamp.changed_ns >= _FRESH_NS:
                cache[stamp.name] = known
                continue
            content = read_file(stamp.name)
            if isinstance(content, Problem):
                problems.append(content)
            elif known is not None and known.content == content:
                cache[stamp.name] = msgspec.structs.replace(known, stamp=stamp)
            else:
                changed = True
                # What ties files together, such as one domain in two of them, is decided by the compiler.
                objects, found = decode([SourceFile(stamp.name, content)], merge_domains=True)
                cache[stamp.name] = _CachedFile(stamp, content, tuple(objects), tuple(found))
        self._cache, self._read_problems, self._scan = cache, tuple(problems), seen
        return changed or before != (tuple(cache), self._read_problems)

    def _compile(self) -> Loaded:
        files = self._cache.values()
        problems = [*self._read_problems, *(problem for file in files for problem in file.problems)]
        objects = [item for file in files for item in file.objects]
        plans, found = plan_set(objects, self._options)
        problems.extend(found)
        return Loaded(() if refuses(problems) else tuple(plans), tuple(problems))


def read_file(name: str) -> bytes | Problem:
    """A regular file, up to one byte more than the decoder takes; a problem where it cannot be read."""
    try:
        # O_NONBLOCK: opening a pipe that somebody left in the folder must not hang the loader.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Problem(name, "", "cannot be read: not a regular file")
            # One byte more than is allowed, so that the decoder sees that it is too large.
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return Problem(name, "", f"cannot be read: {reason(error)}")


def load_once(paths: Sequence[str], options: CompileOptions) -> tuple[Snapshot, list[Problem]]:
    """Load a set at one go, for commands; with an error among the problems the snapshot is empty."""
    loaded = Loader(paths, options).load()
    assert loaded is not None
    return assemble(loaded.plans), list(loaded.problems)
