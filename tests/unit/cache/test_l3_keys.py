"""Key files of the disk level, and records that are sealed with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.cache.errors import CorruptPayload, InvalidKeyFile
from ratelimit_service.cache.l3.keyring import KeyRing, SealingKey
from ratelimit_service.cache.l3.record import clear_name, index_key, read_head, read_record, write_record

OLD, NEW = SealingKey(b"o" * 32), SealingKey(b"n" * 32)


def keys_in(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_the_name_that_sorts_last_is_written_with(tmp_path: Path) -> None:
    """Hidden files, of which a mounted secret has some, are none of the keys."""
    ring = KeyRing.from_folder(keys_in(tmp_path, {"2": b"n" * 32, "1": b"o" * 32, "..data": b"x"}))

    assert ring.current.id == NEW.id
    assert [key.id for key in ring.newest_first()] == [NEW.id, OLD.id]
    assert ring.get(OLD.id) is not None
    assert ring.get(b"none") is None


@pytest.mark.parametrize("files", [{}, {"key": b"short"}, {"key": b"x" * 33}, {".hidden": b"x" * 32}])
def test_a_folder_without_proper_keys_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    """And the error shows the path, never the content."""
    with pytest.raises(InvalidKeyFile) as caught:
        KeyRing.from_folder(keys_in(tmp_path, files))

    assert str(tmp_path) in str(caught.value)
    assert "short" not in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """A missing folder, a missing file, no file at all, no key."""
    with pytest.raises(InvalidKeyFile, match="No such"):
        KeyRing.from_folder(tmp_path / "none")
    with pytest.raises(InvalidKeyFile, match="No such"):
        KeyRing.from_files([tmp_path / "none"])
    with pytest.raises(InvalidKeyFile, match="no key"):
        KeyRing.from_files([])
    with pytest.raises(ValueError, match="needs a key"):
        KeyRing([])
    with pytest.raises(ValueError, match="32 bytes"):
        SealingKey(b"")


def test_a_sealed_record_shows_nothing() -> None:
    """Neither the key nor the payload, nor twice the same bytes."""
    sealed = [
        write_record(NEW.name(b"user:7"), b"user:7", b"secret", expires_us=9, number=1, sealing=NEW) for _ in range(2)
    ]

    assert sealed[0] != sealed[1]
    assert all(b"user" not in data and b"secret" not in data for data in sealed)
    assert b"user" not in NEW.name(b"user:7")
    assert NEW.name(b"user:7") != OLD.name(b"user:7")


def test_a_record_in_clear_is_these_bytes() -> None:
    """The layout of version 1 is fixed: a later version reads a level that an earlier one wrote."""
    data = write_record(b"k", b"k", b"payload", expires_us=9, number=2, sealing=None)

    assert data.hex() == (
        "01 00000000 0000000000000009 0000000000000002 {crc} 0001 6b 7061796c6f6164".replace(" ", "")
    ).format(crc=data[21:25].hex())
    assert data[21:25].hex() == "b1a4de38"
    assert read_head(data) == (9, 2)
    assert index_key(9, 2).hex() == "00000000000000090000000000000002"


@pytest.mark.parametrize("sealing", [None, OLD, NEW])
def test_a_record_is_read_back_by_its_name_only(sealing: SealingKey | None) -> None:
    """Under another name, or with any bit changed, it is corrupt."""
    ring = KeyRing([OLD, NEW]) if sealing is not None else None
    data = write_record(b"name", b"key", b"payload", expires_us=9, number=1, sealing=sealing)
    record = read_record(b"name", data, ring)
    assert (record.key, record.payload, record.expires_us) == ("key", b"payload", 9)

    damaged = [(b"eman", data), (b"name", data[:-1]), (b"name", data + b"x")]
    for index in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[index // 8] ^= 1 << index % 8
        # The checksum's place says nothing in a sealed record.
        damaged += [(b"name", bytes(flipped))] * (sealing is None or not 21 <= index // 8 < 25)
    for name, wrong in damaged:
        with pytest.raises(CorruptPayload):
            read_record(name, wrong, ring)


@pytest.mark.parametrize(
    ("sealing", "ring"), [(None, KeyRing([NEW])), (OLD, KeyRing([NEW])), (OLD, None)], ids=["clear", "other", "none"]
)
def test_a_record_without_its_key_is_corrupt(sealing: SealingKey | None, ring: KeyRing | None) -> None:
    """A removed key ends what it sealed; a level with keys reads nothing in clear."""
    data = write_record(b"name", b"key", b"payload", expires_us=9, number=1, sealing=sealing)

    with pytest.raises(CorruptPayload):
        read_record(b"name", data, ring)


def test_what_is_no_record_is_corrupt() -> None:
    """Too short, of another version, or with a key that is not UTF-8."""
    for data in (b"", b"\x01" * 24, b"\x02" * 40):
        assert read_head(data) is None
        with pytest.raises(CorruptPayload):
            read_record(b"name", data, None)
    with pytest.raises(CorruptPayload, match="UTF-8"):
        read_record(b"n", write_record(b"n", b"\xff", b"", expires_us=9, number=1, sealing=None), None)


def test_names_fit_the_database_and_tell_long_keys_apart() -> None:
    """Short keys are their own names; long ones keep their beginning."""
    long = [b"x" * 600 + bytes([number]) for number in range(2)]

    assert clear_name(b"short") == b"short"
    assert clear_name(b"x" * 500) == b"x" * 500
    assert len({clear_name(key) for key in long}) == 2
    assert all(len(clear_name(key)) <= 511 and clear_name(key).startswith(b"x" * 460) for key in long)
    assert clear_name(b"") != b""
