"""How much memory a value takes: an estimate that follows the allocators, not only the objects.

`sys.getsizeof` leaves out what is referred to, and what an allocator adds. Here a value's objects are walked once,
each counted once, and each size is rounded as CPython's small-object allocator (16 B steps up to 512 B) or glibc's
malloc (8 B header, 16 B steps; whole pages from 128 KiB) would. What is shared by the whole process is not counted:
small integers, None, empty containers, classes, functions, modules.
"""

from __future__ import annotations

import gc
import sys
import types
from typing import Final

__all__ = ["MAX_WALKED_OBJECTS", "allocated_bytes", "estimate_bytes"]

MAX_WALKED_OBJECTS: Final = 10_000
"""A value of more objects is taken to go on as its first ones do; about 1 ms of walking."""

_SMALL_BYTES: Final = 512
_MMAP_BYTES: Final = 128 * 1024
_PAGE_BYTES: Final = 4096

_FLAT: Final = frozenset({bytes, str, float, int, complex, bytearray})
"""Types that refer to nothing."""

_SMALL_INTS: Final = range(-5, 257)
"""The interpreter's own."""

_SHARED_TYPES: Final = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.GetSetDescriptorType,
    types.CodeType,
)


def allocated_bytes(size_bytes: int) -> int:
    """What an allocation of this size takes out of the process's memory."""
    if size_bytes <= _SMALL_BYTES:
        return (size_bytes + 15) & ~15
    if size_bytes < _MMAP_BYTES:
        return (size_bytes + 8 + 15) & ~15
    return (size_bytes + 16 + _PAGE_BYTES - 1) & ~(_PAGE_BYTES - 1)


def estimate_bytes(value: object) -> int:
    """Memory of a value and of all that only it refers to, as far as that can be seen.

    A value of more than `MAX_WALKED_OBJECTS` objects is extrapolated from those walked. Objects that several values
    share count with each of them.
    """
    if type(value) in _FLAT:
        return 0 if _is_shared(value) else allocated_bytes(sys.getsizeof(value))
    return _walk(value)


def _is_shared(value: object) -> bool:
    """Say whether the process has this object anyway."""
    kind = type(value)
    if kind is int:
        return value in _SMALL_INTS
    if kind is bytes or kind is str or kind is tuple:
        return not value
    return value is None or value is True or value is False or isinstance(value, _SHARED_TYPES)


def _walk(value: object) -> int:
    """Sizes of all objects that can be reached, each once."""
    pending: list[object] = [value]
    seen: set[int] = set()
    total_bytes = 0
    while pending and len(seen) < MAX_WALKED_OBJECTS:
        current = pending.pop()
        if id(current) in seen or _is_shared(current):
            continue
        seen.add(id(current))
        total_bytes += allocated_bytes(sys.getsizeof(current))
        if type(current) not in _FLAT:
            # `get_referents` sees attributes without making the `__dict__` that looking them up would make.
            pending.extend(gc.get_referents(current))
    if pending:
        total_bytes += total_bytes // len(seen) * len(pending)
    return total_bytes
