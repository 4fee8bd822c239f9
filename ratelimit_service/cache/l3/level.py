"""The disk level: an lmdb database of records, bounded in size, that survives restarts and kills.

Two tables: records by name, and an index of names by expiry and age, from whose beginning records are evicted, so that
the expired go first and then those that would expire next. Every change of both is one transaction.

What a process that dies had committed is there again, because the system writes it; what a machine that loses power had
committed in its last seconds may not be, for nothing waits for the disk (`sync=False`): it is a cache. Such a file is
found out when it is opened (`opening`), as every record is when it is read (`record`).

`get` takes a few microseconds and `put` a few tens while the file is in the system's page cache, which is where a level
of less than the machine's free memory stays: an event loop may call them directly. A read from beyond waits as long as
the disk does, and opening a file that has to be walked through takes seconds: those belong into a thread. Methods may
be called from several threads; `close` is last.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Self

import lmdb
import msgspec

from ratelimit_service.cache.entry import NEVER_US
from ratelimit_service.cache.errors import CorruptPayload, LevelUnavailable
from ratelimit_service.cache.l3.keyring import KeyRing
from ratelimit_service.cache.l3.opening import Folder
from ratelimit_service.cache.l3.record import (
    Record,
    clear_name,
    index_key,
    read_head,
    read_record,
    write_record,
)

__all__ = ["L3", "MIN_SIZE_BYTES", "L3Stats"]

MIB: Final = 1024 * 1024
MIN_SIZE_BYTES: Final = 4 * MIB

_MOST_KEY_BYTES: Final = 65_535
_SIXTEENTHS_FULL: Final = 14
"""Pages in use from which records are evicted, in sixteenths of all; the rest is for pages that a change replaces."""
_SIXTEENTHS_KEPT: Final = 13
_EVICTED_PER_TRANSACTION: Final = 32
_KEPT_FOR_ROOM: Final = (13, 9, 4, 0)
"""Sixteenths that are kept, at each attempt fewer, when a change finds no room: large values need pages in a row."""
_LARGEST_SHARE: Final = 32
_ITEMS_PER_TRANSACTION: Final = 64
_UNSOUND: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.InvalidError)


class L3Stats(msgspec.Struct, frozen=True):
    """Plain integers for metrics.

    Attributes:
        entries: Records, expired ones that were not evicted yet included.
        used_bytes, max_size_bytes: Pages in use; the cap, which the file never passes.
        hits, misses: Answers of `get`; expired and unreadable records are misses.
        stored, refused: Puts that were stored; puts that were too large or found no room.
        evicted: Records given up for want of room, expired ones included.
        corrupt: Records that were found unreadable, and removed.
        restarts: Times that the file was found unsound and begun anew.
    """

    entries: int
    used_bytes: int
    max_size_bytes: int
    hits: int
    misses: int
    stored: int
    refused: int
    evicted: int
    corrupt: int
    restarts: int


class L3:
    """See the module. A context manager: leaving it closes the level.

    Args:
        path: A folder of its own; made if it is not there.
        max_size_bytes: At least 4 MiB. A payload of more than a 32nd is refused.
        keys: Seals all records, their keys included; None writes in clear. A level that was written the other way is
            deleted and begun anew, so that with keys nothing readable is left in the folder. (What a file system keeps
            of deleted files is its own.)

    Attributes:
        report: What was found wrong when the level was opened and what became of it; None for nothing.

    Raises:
        LevelUnavailable: The folder cannot be used, or another process has it.
        ValueError: `max_size_bytes` is too small.
    """

    def __init__(self, path: Path, max_size_bytes: int = 1024 * MIB, *, keys: KeyRing | None = None) -> None:
        if max_size_bytes < MIN_SIZE_BYTES:
            raise ValueError(f"at least {MIN_SIZE_BYTES:,} B are needed: {max_size_bytes:,}")
        self.max_size_bytes = max_size_bytes
        self.report: str | None = None
        self._keys = keys
        self._counts = dict.fromkeys(("hits", "misses", "stored", "refused", "evicted", "corrupt", "restarts"), 0)
        self._written_bytes = 0
        self._number = 0
        self._folder = Folder(path)
        try:
            fault = self._folder.find_fault()
            if fault is not None:
                self._begin_anew(fault)
            self._open()
        except (OSError, lmdb.Error) as error:
            self._folder.release()
            raise LevelUnavailable("l3", f"{path}: {error}") from error

    def _open(self) -> None:
        # Whole pages; lmdb refuses to grow the file past this.
        map_bytes = self.max_size_bytes // 4096 * 4096
        self._env = lmdb.open(
            str(self._folder.path),
            map_size=map_bytes,
            max_dbs=3,
            mode=0o600,
            sync=False,
            metasync=False,
            readahead=False,
            max_spare_txns=4,
        )
        self._page_bytes = self._env.stat()["psize"]
        self._most_pages = map_bytes // self._page_bytes
        about = self._env.open_db(b"about")
        self._records = self._env.open_db(b"records")
        self._index = self._env.open_db(b"index")
        kind = b"clear" if self._keys is None else b"sealed"
        with self._env.begin(write=True) as txn:
            found = txn.get(b"kind", db=about)
            txn.put(b"kind", kind, db=about)
            # Numbers of this run are greater than those of all runs before.
            run = int.from_bytes(txn.get(b"run", b"", db=about), "big") + 1
            txn.put(b"run", run.to_bytes(8, "big"), db=about)
        self._number = run << 40
        if found not in (None, kind):
            self._env.close()
            self._folder.remove()
            self.report = "the level was written in clear before, or sealed before: begun anew"
            self._open()

    def _begin_anew(self, fault: str) -> None:
        aside = self._folder.move_aside()
        self._counts["restarts"] += 1
        self.report = f"the file was unsound ({fault}): moved to {aside.name}, begun anew"

    def _failed(self, error: lmdb.Error) -> LevelUnavailable:
        """What to raise for an error of lmdb's; an unsound file is replaced on the way."""
        if isinstance(error, _UNSOUND):
            self._env.close()
            self._begin_anew(str(error))
            self._open()
        return LevelUnavailable("l3", str(error))

    def _names(self, key: bytes) -> list[bytes]:
        """All names under which the record of this key may lie, the one to write under first."""
        if self._keys is None:
            return [clear_name(key)]
        return [sealing.name(key) for sealing in self._keys.newest_first()]

    def get(self, key: str, now_us: int = 0) -> bytes | None:
        """The payload of this key, unless it has expired by `now_us`; None also where it was unreadable.

        Without `now_us` expiry is not looked at: the payload says for itself.

        Raises:
            LevelUnavailable: The database failed.
        """
        encoded = key.encode()
        for name in self._names(encoded):
            try:
                with self._env.begin(db=self._records) as txn:
                    data = txn.get(name)
            except lmdb.Error as error:
                raise self._failed(error) from error
            if data is None:
                continue
            try:
                record = read_record(name, data, self._keys)
            except CorruptPayload:
                self._counts["corrupt"] += 1
                self._remove([name])
                continue
            if record.key == key and record.expires_us > now_us:
                self._counts["hits"] += 1
                return record.payload
        self._counts["misses"] += 1
        return None

    def put(self, key: str, payload: bytes, *, expires_us: int = NEVER_US) -> bool:
        """Store a payload in place of the one that the key has; its expiry is by the wall clock, as it outlives a run.

        Returns:
            False: It is too large, or there is no room however much is evicted. The key has no payload then.

        Raises:
            LevelUnavailable: The database failed, such as on a full disk. What the key has then is not known.
        """
        return self.put_many([(key, payload, expires_us)]) == 1

    def put_many(self, items: Iterable[tuple[str, bytes, int]]) -> int:
        """Store payloads, each with key and expiry, in one transaction; return how many were stored.

        Raises:
            LevelUnavailable: See `put`.
        """
        fitting: list[tuple[bytes, bytes, int]] = []
        unfit: list[bytes] = []
        for key, payload, expires_us in items:
            encoded = key.encode()
            if len(payload) > self.max_size_bytes // _LARGEST_SHARE or len(encoded) > _MOST_KEY_BYTES:
                unfit += self._names(encoded)
            else:
                fitting.append((encoded, payload, expires_us))
        if unfit:
            self._counts["refused"] += len(unfit)
            self._remove(unfit)
        try:
            return self._store(fitting)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _store(self, items: list[tuple[bytes, bytes, int]]) -> int:
        for sixteenths in (*_KEPT_FOR_ROOM, None):
            try:
                with self._env.begin(write=True, buffers=True) as txn:
                    for key, payload, expires_us in items:
                        self._store_one(txn, key, payload, expires_us)
                break
            except lmdb.MapFullError:
                if sixteenths is None:
                    self._counts["refused"] += len(items)
                    self._remove([name for key, _, _ in items for name in self._names(key)])
                    return 0
                self._trim(sixteenths)
        self._counts["stored"] += len(items)
        self._written_bytes += sum(len(payload) for _, payload, _ in items)
        if self._written_bytes > self.max_size_bytes >> 7:
            self._written_bytes = 0
            if self._pages_in_use() * 16 > self._most_pages * _SIXTEENTHS_FULL:
                self._trim(_SIXTEENTHS_KEPT)
        return len(items)

    def _store_one(self, txn: lmdb.Transaction[memoryview], key: bytes, payload: bytes, expires_us: int) -> None:
        names = self._names(key)
        for name in names:
            self._unlink(txn, name)
        # Under the writer's lock, which the transaction has: each number is given once.
        self._number = number = self._number + 1
        sealing = self._keys.current if self._keys is not None else None
        record = write_record(names[0], key, payload, expires_us=expires_us, number=number, sealing=sealing)
        txn.put(names[0], record, db=self._records)
        txn.put(index_key(expires_us, number), names[0], db=self._index)

    def _unlink(self, txn: lmdb.Transaction[memoryview], name: bytes) -> bool:
        """Delete a record and its place in the index; say whether there was one."""
        data = txn.get(name, db=self._records)
        if data is None:
            return False
        head = read_head(bytes(data[:32]))
        if head is not None:
            txn.delete(index_key(*head), db=self._index)
        txn.delete(name, db=self._records)
        return True

    def _remove(self, names: list[bytes]) -> int:
        try:
            with self._env.begin(write=True, buffers=True) as txn:
                return sum(self._unlink(txn, name) for name in names)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def delete(self, key: str) -> bool:
        """Forget a key; return whether it had a record, expired or not.

        Raises:
            LevelUnavailable: The database failed; the record may still be there.
        """
        return self._remove(self._names(key.encode())) > 0

    def clear(self) -> None:
        """Forget all keys.

        Raises:
            LevelUnavailable: The database failed; records may still be there.
        """
        try:
            with self._env.begin(write=True) as txn:
                txn.drop(self._records, delete=False)
                txn.drop(self._index, delete=False)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _pages_in_use(self) -> int:
        with self._env.begin() as txn:
            return sum(
                stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
                for stat in (txn.stat(self._records), txn.stat(self._index))
            )

    def _trim(self, sixteenths: int) -> None:
        """Evict from the beginning of the index until so many sixteenths of the pages are in use."""
        while self._pages_in_use() * 16 > self._most_pages * sixteenths:
            with self._env.begin(write=True, buffers=True) as txn:
                cursor = txn.cursor(self._index)
                found = islice(cursor.iternext(), _EVICTED_PER_TRANSACTION) if cursor.first() else ()
                oldest = [(bytes(place), bytes(name)) for place, name in found]
                for place, name in oldest:
                    self._counts["evicted"] += self._unlink(txn, name)
                    # Gone already where the record was as the index has it.
                    txn.delete(place, db=self._index)
            if not oldest:
                return

    def items(self, now_us: int) -> Iterator[Record]:
        """All records that are readable and alive at `now_us`, by name.

        Records that come and go meanwhile may be missed; no transaction is held between two of them.

        Raises:
            LevelUnavailable: The database failed.
        """
        name = b""
        while True:
            chunk: list[tuple[bytes, bytes]] = []
            try:
                with self._env.begin(db=self._records) as txn:
                    cursor = txn.cursor()
                    found = cursor.set_range(name) if name else cursor.first()
                    while found and len(chunk) < _ITEMS_PER_TRANSACTION:
                        chunk.append((cursor.key(), cursor.value()))
                        found = cursor.next()
            except lmdb.Error as error:
                raise self._failed(error) from error
            for name, data in chunk:
                try:
                    record = read_record(name, data, self._keys)
                except CorruptPayload:
                    continue
                if record.expires_us > now_us:
                    yield record
            if len(chunk) < _ITEMS_PER_TRANSACTION:
                return
            # The first name after the last one.
            name += b"\x00"

    def stats(self) -> L3Stats:
        """Counters and sizes.

        Raises:
            LevelUnavailable: The database failed.
        """
        try:
            with self._env.begin() as txn:
                entries = txn.stat(self._records)["entries"]
            used_bytes = self._pages_in_use() * self._page_bytes
        except lmdb.Error as error:
            raise self._failed(error) from error
        return L3Stats(entries=entries, used_bytes=used_bytes, max_size_bytes=self.max_size_bytes, **self._counts)

    def sync(self) -> None:
        """Have the system write everything to the disk, and wait for it.

        Raises:
            LevelUnavailable: It could not.
        """
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file in order, so that the next to open it need not verify it."""
        self._env.close()
        self._folder.note_closed()
        self._folder.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()
