"""The disk level: what it keeps, what it gives up, and what it does when something is wrong with it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.l3 import L3, KeyRing, SealingKey

MIB = 1024 * 1024
CAP_BYTES = 4 * MIB
RINGS = {"clear": None, "sealed": KeyRing([SealingKey(b"k" * 32)])}


@pytest.fixture(params=RINGS)
def keys(request: pytest.FixtureRequest) -> KeyRing | None:
    """In clear, and sealed."""
    return RINGS[request.param]


def payload_of(number: int, size_bytes: int = 1_700) -> bytes:
    """Bytes that do not compress, the same for the same number."""
    return random.Random(number).randbytes(size_bytes)


def test_what_was_put_is_there_after_opening_again(tmp_path: Path, keys: KeyRing | None) -> None:
    """Values, replaced values, long keys, empty keys, empty values."""
    kept = {"a": b"1", "": b"empty key", "x" * 600: b"long", "é" * 300: b"", "large": payload_of(1, 120_000)}
    with L3(tmp_path, CAP_BYTES, keys=keys) as level:
        level.put("a", b"0")
        for key, payload in kept.items():
            assert level.put(key, payload)
    with L3(tmp_path, CAP_BYTES, keys=keys) as level:
        assert level.report is None
        assert {key: level.get(key) for key in kept} == kept
        assert {record.key: record.payload for record in level.items(0)} == kept
        assert level.get("none") is None
        assert level.stats().entries == len(kept)


def test_an_entry_is_served_until_it_expires(tmp_path: Path, keys: KeyRing | None) -> None:
    """The last microsecond is the one before; without a time nothing is judged."""
    with L3(tmp_path, CAP_BYTES, keys=keys) as level:
        level.put("a", b"1", expires_us=10)

        assert [level.get("a", now_us) for now_us in (0, 9, 10)] == [b"1", b"1", None]
        assert [record.expires_us for record in level.items(9)] == [10]
        assert list(level.items(10)) == []
        assert level.get("a") == b"1"


def test_deleting_says_whether_there_was_something(tmp_path: Path, keys: KeyRing | None) -> None:
    """And leaves nothing in the index."""
    with L3(tmp_path, CAP_BYTES, keys=keys) as level:
        level.put("a", b"1")

        assert level.delete("a")
        assert not level.delete("a")
        assert level.get("a") is None
        assert level.stats().entries == 0


def test_clearing_forgets_all(tmp_path: Path, keys: KeyRing | None) -> None:
    """And the level goes on."""
    with L3(tmp_path, CAP_BYTES, keys=keys) as level:
        level.put_many([(f"k{number}", b"x", 10) for number in range(100)])
        level.clear()

        assert list(level.items(0)) == []
        assert level.put("a", b"1")
        assert level.get("a") == b"1"


def test_more_items_than_fit_one_transaction_are_all_told(tmp_path: Path) -> None:
    """Each once, in order of their names."""
    with L3(tmp_path, CAP_BYTES) as level:
        names = [f"k{number:03}" for number in range(200)]
        level.put_many([(name, b"x", 10) for name in names])

        assert [record.key for record in level.items(0)] == names


def test_the_file_never_passes_its_cap_and_the_next_to_expire_go_first(tmp_path: Path, keys: KeyRing | None) -> None:
    """Ten times as much as there is room for; what expires last is kept."""
    count = 8_000
    with L3(tmp_path, CAP_BYTES, keys=keys) as level:
        for first in range(0, count, 20):
            numbers = range(first, first + 20)
            assert level.put_many([(f"k{n}", payload_of(n % 7, 4_000), 10 + (n * 7919) % count) for n in numbers]) == 20
        stats = level.stats()
        kept = list(level.items(0))

        assert (tmp_path / "data.mdb").stat().st_size <= CAP_BYTES
        assert stats.used_bytes <= CAP_BYTES
        assert stats.entries == len(kept) > 300
        assert stats.stored == count
        assert sum(record.expires_us for record in kept) / len(kept) > count * 0.8
        assert len({record.expires_us for record in kept}) == len(kept)


def test_payloads_of_very_different_sizes_share_a_small_file(tmp_path: Path) -> None:
    """However they come, puts are stored and the rest stays readable."""
    draw = random.Random(3)
    with L3(tmp_path, CAP_BYTES) as level:
        for number in range(600):
            size = draw.choice([10, 3_000, 30_000, 130_000])
            assert level.put(f"k{number % 50}", payload_of(number, size))
            assert level.get(f"k{number % 50}") == payload_of(number, size)


@pytest.mark.parametrize("count", [1, 400])
def test_what_finds_no_room_is_refused_and_its_old_value_is_gone(tmp_path: Path, count: int) -> None:
    """One payload that is too large, or more at once than the file holds."""
    with L3(tmp_path, CAP_BYTES) as level:
        level.put("k0", b"old")
        level.put("other", b"x")
        size_bytes = CAP_BYTES // 32 + (count == 1)
        stored = level.put_many([(f"k{number}", bytes(size_bytes), 10) for number in range(count)])

        assert stored == 0
        assert level.get("k0") is None
        assert level.stats().refused == count
        assert not level.put("k" * 70_000, b"x")
        assert level.put("k0", b"new")
        assert level.get("k0") == b"new"


def test_keys_rotate_without_losing_what_older_ones_sealed(tmp_path: Path) -> None:
    """Old values are read until they are replaced; a value is never there twice, and a removed key ends its values."""
    old, new = SealingKey(b"o" * 32), SealingKey(b"n" * 32)
    with L3(tmp_path, CAP_BYTES, keys=KeyRing([old])) as level:
        level.put_many([("a", b"1", 10), ("b", b"2", 10), ("c", b"3", 10)])
    with L3(tmp_path, CAP_BYTES, keys=KeyRing([old, new])) as level:
        level.put("b", b"4")
        assert [level.get(key) for key in "abc"] == [b"1", b"4", b"3"]
        assert level.delete("c")
        assert level.stats().entries == 2
    with L3(tmp_path, CAP_BYTES, keys=KeyRing([new])) as level:
        assert [level.get(key) for key in "abc"] == [None, b"4", None]


def test_with_keys_nothing_readable_is_on_the_disk(tmp_path: Path) -> None:
    """Neither keys nor values, also not what was written in clear before."""
    with L3(tmp_path, CAP_BYTES) as level:
        level.put("plain-key", b"plain-value" * 10)
    with L3(tmp_path, CAP_BYTES, keys=RINGS["sealed"]) as level:
        assert level.report is not None
        assert level.get("plain-key") is None
        level.put("secret-key", b"secret-value" * 10)
        level.sync()
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())

        assert b"plain" not in content
        assert b"secret" not in content
        assert level.get("secret-key") == b"secret-value" * 10


def test_a_sealed_level_opened_without_keys_begins_anew(tmp_path: Path) -> None:
    """It could read nothing of it."""
    with L3(tmp_path, CAP_BYTES, keys=RINGS["sealed"]) as level:
        level.put("a", b"1")
    with L3(tmp_path, CAP_BYTES) as level:
        assert level.report is not None
        assert level.stats().entries == 0


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """A cache of sessions is no business of others."""
    with L3(tmp_path / "new" / "folder", CAP_BYTES) as level:
        level.put("a", b"1")
        modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "new" / "folder").iterdir()}

        assert set(modes.values()) == {0}
        assert (tmp_path / "new" / "folder").stat().st_mode & 0o077 == 0


def test_a_folder_belongs_to_one_level_at_a_time(tmp_path: Path) -> None:
    """The second to open it is told, and may have it when the first is closed."""
    with L3(tmp_path, CAP_BYTES), pytest.raises(LevelUnavailable, match="another process"):
        L3(tmp_path, CAP_BYTES)
    L3(tmp_path, CAP_BYTES).close()


def test_a_folder_that_cannot_be_is_an_unavailable_level(tmp_path: Path) -> None:
    """Not an error of the system's, and a cap too small is the caller's fault."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LevelUnavailable):
        L3(tmp_path / "file", CAP_BYTES)
    with pytest.raises(ValueError, match="needed"):
        L3(tmp_path, CAP_BYTES - 1)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Write into a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def truncated(path: Path) -> None:
    """Half of the file is missing."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Nothing is left of it."""
    os.truncate(path, 0)


def overwritten(path: Path) -> None:
    """Every page but the first has noise in its head."""
    for offset in range(4096, path.stat().st_size, 4096):
        overwrite(path, offset, payload_of(offset, 24))


def foreign(path: Path) -> None:
    """It is something else altogether."""
    path.write_bytes(b"no database\n" * 10_000)


@pytest.mark.parametrize("damage", [truncated, empty, overwritten, foreign])
def test_an_unsound_file_is_moved_aside_and_the_level_begins_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """It is never mapped, the report says what was found, and the level works."""
    with L3(tmp_path, CAP_BYTES) as level:
        level.put_many([(f"k{number}", payload_of(number), 10) for number in range(500)])
    damage(tmp_path / "data.mdb")
    with L3(tmp_path, CAP_BYTES) as level:
        assert level.report is not None
        assert "moved to data.mdb.unsound" in level.report
        assert (tmp_path / "data.mdb.unsound").exists()
        assert level.stats().restarts == 1
        assert level.get("k1") is None
        assert level.put("a", b"1")
    with L3(tmp_path, CAP_BYTES) as level:
        assert level.report is None
        assert level.get("a") == b"1"


def test_a_damaged_value_is_missed_and_removed(tmp_path: Path) -> None:
    """One flipped bit in a value harms nothing else."""
    with L3(tmp_path, CAP_BYTES) as level:
        level.put_many([(f"k{number}", payload_of(number), 10) for number in range(20)])
    file = tmp_path / "data.mdb"
    at = file.read_bytes().rindex(payload_of(7)[100:140])
    overwrite(file, at, bytes([payload_of(7)[100] ^ 1]))
    with L3(tmp_path, CAP_BYTES) as level:
        assert level.report is None, "the file's structure is sound"
        assert level.get("k7") is None
        assert all(level.get(f"k{number}") == payload_of(number) for number in range(20) if number != 7)
        assert (level.stats().corrupt, level.stats().entries) == (1, 19)
        overwritten_again = level.put("k7", b"new")
        assert overwritten_again
        assert level.get("k7") == b"new"


def test_items_pass_over_damaged_values(tmp_path: Path) -> None:
    """What is left is told."""
    with L3(tmp_path, CAP_BYTES) as level:
        level.put_many([("a", payload_of(1), 10), ("b", payload_of(2), 10)])
    file = tmp_path / "data.mdb"
    overwrite(file, file.read_bytes().rindex(payload_of(1)[100:140]), b"\x00\x00\x00\x00")
    with L3(tmp_path, CAP_BYTES) as level:
        assert [record.key for record in level.items(0)] == ["b"]


def test_a_file_that_was_not_closed_in_order_is_verified_and_kept(tmp_path: Path) -> None:
    """What was noted at closing is missing or no note at all: the file is walked through, and is sound."""
    with L3(tmp_path, CAP_BYTES) as level:
        level.put("a", b"1")
    (tmp_path / "closed.json").write_bytes(b"no note")
    with L3(tmp_path, CAP_BYTES) as level:
        assert level.report is None
        assert level.get("a") == b"1"


def test_closing_a_level_whose_folder_is_gone_is_no_error(tmp_path: Path) -> None:
    """There is nothing left to note."""
    with L3(tmp_path / "folder", CAP_BYTES) as level:
        level.put("a", b"1")
        shutil.rmtree(tmp_path / "folder")

    assert not (tmp_path / "folder").exists()


def test_a_database_that_fails_is_an_unavailable_level(tmp_path: Path) -> None:
    """Whatever is asked of it."""
    level = L3(tmp_path, CAP_BYTES)
    level._env.close()
    calls: list[Callable[[], object]] = [
        lambda: level.get("a"),
        lambda: level.put("a", b"1"),
        lambda: level.delete("a"),
        level.clear,
        lambda: list(level.items(0)),
        level.stats,
        level.sync,
    ]
    for call in calls:
        with pytest.raises(LevelUnavailable) as caught:
            call()
        assert caught.value.level == "l3"
    level.close()


def test_a_database_that_turns_out_unsound_begins_anew(tmp_path: Path) -> None:
    """The call that met it fails, the next one finds an empty level that works."""
    with L3(tmp_path, CAP_BYTES) as level:
        level.put("a", b"1")
        failure = level._failed(lmdb.CorruptedError("planted"))

        assert "planted" in str(failure)
        assert level.get("a") is None
        assert level.put("a", b"2")
        assert level.stats().restarts == 1
        assert level.report is not None
        assert "planted" in level.report


def test_a_database_that_cannot_be_opened_leaves_the_folder_to_others(tmp_path: Path) -> None:
    """What stands in its way is named."""
    (tmp_path / "lock.mdb").mkdir()
    with pytest.raises(LevelUnavailable, match=r"lock\.mdb|directory"):
        L3(tmp_path, CAP_BYTES)
    (tmp_path / "lock.mdb").rmdir()
    L3(tmp_path, CAP_BYTES).close()
