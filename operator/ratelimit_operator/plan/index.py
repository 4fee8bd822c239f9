"""What was seen of one kind, from events that may be late, double, out of order or missing.

A complete list is the truth; events only make it known earlier. Three rules keep ghosts and shadows out:

1. An event older than what is known of the same object changes nothing (resource versions of one object grow).
2. What was deleted stays deleted: a late event of a removed object does not bring it back.
3. A list removes what it lacks, unless an event told of it after the list had begun.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

SeenT = TypeVar("SeenT")

_TOMBSTONES: Final = 10_000


class Listed(msgspec.Struct, frozen=True):
    """What a list of metadata says of one object."""

    key: str
    uid: str
    resource_version: str


class _Entry(msgspec.Struct, Generic[SeenT]):
    uid: str
    version: int
    seen: SeenT
    at_s: float


class Index(Generic[SeenT]):
    """Objects of one kind by `<namespace>/<name>` (or `<name>`).

    Attributes:
        ghosts: Objects that a list showed to be gone without an event; counts up.
    """

    def __init__(self, view: Callable[[Mapping[str, Any], SeenT | None], SeenT]) -> None:
        self._view = view
        self._entries: dict[str, _Entry[SeenT]] = {}
        self._deleted: dict[str, None] = {}
        self.ghosts = 0

    def objects(self, only: Collection[str] | None = None) -> dict[str, SeenT]:
        """All of them, or of those names the ones that there are."""
        if only is None:
            return {key: entry.seen for key, entry in self._entries.items()}
        return {key: self._entries[key].seen for key in only if key in self._entries}

    def get(self, key: str) -> SeenT | None:
        """One of them."""
        entry = self._entries.get(key)
        return None if entry is None else entry.seen

    def put(self, body: Mapping[str, Any], now_s: float) -> bool:
        """An object is there; False: that is known, or out of date."""
        metadata = body["metadata"]
        key, uid, version = key_of(metadata), metadata["uid"], _number(metadata["resourceVersion"])
        if uid in self._deleted:
            return False
        entry = self._entries.get(key)
        if entry is not None and entry.uid == uid and entry.version >= version:
            entry.at_s = now_s
            return False
        before = entry.seen if entry is not None and entry.uid == uid else None
        self._entries[key] = _Entry(uid, version, self._view(body, before), now_s)
        return True

    def remove(self, body: Mapping[str, Any]) -> bool:
        """An object is gone; False: that is known, or another of its name is there."""
        metadata = body["metadata"]
        key, uid = key_of(metadata), metadata["uid"]
        self._bury(uid)
        entry = self._entries.get(key)
        if entry is None or entry.uid != uid:
            return False
        del self._entries[key]
        return True

    def reconcile(self, listed: Collection[Listed], began_s: float) -> tuple[list[str], bool]:
        """Compare with a complete list that was begun at that time.

        Returns:
            Keys of objects that have to be read anew, and whether any was removed.
        """
        there = {each.key: each for each in listed}
        gone = [
            key
            for key, entry in self._entries.items()
            if entry.at_s < began_s and (key not in there or there[key].uid != entry.uid)
        ]
        for key in gone:
            self._bury(self._entries.pop(key).uid)
        self.ghosts += len(gone)
        stale = [each.key for each in listed if each.uid not in self._deleted and not self._is_current(each)]
        return stale, bool(gone)

    def _is_current(self, listed: Listed) -> bool:
        entry = self._entries.get(listed.key)
        return entry is not None and entry.uid == listed.uid and entry.version >= _number(listed.resource_version)

    def _bury(self, uid: str) -> None:
        self._deleted[uid] = None
        if len(self._deleted) > _TOMBSTONES:
            del self._deleted[next(iter(self._deleted))]


def key_of(metadata: Mapping[str, Any]) -> str:
    """`<namespace>/<name>`, or `<name>` where there is no namespace."""
    namespace = metadata.get("namespace") or ""
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def _number(resource_version: str) -> int:
    """A resource version as the API server counts them (comparable since Kubernetes 1.35, and in fact before)."""
    return int(resource_version) if resource_version.isdigit() else 0
