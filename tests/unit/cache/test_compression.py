"""What the engine compresses, what it leaves, and what it refuses to unpack."""

from __future__ import annotations

import gzip
import json
import random
import struct
import sys
import threading
import zlib
from collections.abc import Callable

import pytest
import zstandard

from ratelimit_service.cache.compression import CompressionEngine, Method, Packed
from ratelimit_service.cache.dictionaries import Dictionary, DictionaryHistory, train
from ratelimit_service.cache.errors import CorruptPayload, PayloadTooLarge


def record(number: int) -> bytes:
    """JSON of about 350 bytes, as sessions have it."""
    draw = random.Random(number)
    value = {
        "id": draw.getrandbits(64),
        "user": {"name": f"user-{draw.randrange(10_000)}", "roles": ["reader", "writer"], "locale": "en-GB"},
        "scopes": ["orders:read", "orders:write", "profile:read"],
        "issuer": "https://login.example.org/realms/main",
        "audience": ["api.example.org", "shop.example.org"],
        "expires_at": 1_700_000_000 + draw.randrange(10_000),
        "address": f"10.0.{draw.randrange(255)}.{draw.randrange(255)}",
    }
    return json.dumps(value).encode()


SMALL = record(1)
LARGE = b"[" + b",".join(record(number) for number in range(30)) + b"]"
NOISE = random.Random(1).randbytes(5_000)


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    """Trained on a thousand records."""
    return train([record(number) for number in range(1_000)])


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("data", [b"", b"x", SMALL, LARGE, NOISE])
def test_every_method_gives_the_data_back(method: Method, data: bytes) -> None:
    """Whatever a method does with a payload, unpacking undoes it."""
    engine = CompressionEngine(method, threshold_bytes=0)

    assert engine.decompress(engine.compress(data)) == data


def test_the_threshold_is_the_smallest_size_that_is_compressed() -> None:
    """One byte below it a payload is stored as it is."""
    engine = CompressionEngine(Method.GZIP, threshold_bytes=512)

    assert engine.pack(bytes(511)).method is Method.STORED
    assert engine.pack(bytes(512)).method is Method.GZIP


def test_what_does_not_shrink_by_a_tenth_is_stored() -> None:
    """Reading it is free then."""
    engine = CompressionEngine(Method.ZSTD)

    assert engine.pack(NOISE) == Packed(Method.STORED, 0, len(NOISE), NOISE)
    assert engine.stats().incompressible == 1


def test_limits_are_compressed_by_gzip_of_level_4() -> None:
    """The profile of limits has these defaults, and other values gzip 6 where there is no zstd."""
    assert (CompressionEngine.for_limits().method, CompressionEngine.for_limits().level) == (Method.GZIP, 4)
    assert CompressionEngine(Method.GZIP).level == 6
    assert CompressionEngine().method is Method.ZSTD


@pytest.mark.parametrize("level", range(1, 10))
def test_every_gzip_level_is_readable_by_gzip(level: int) -> None:
    """The container is the standard's."""
    packed = CompressionEngine(Method.GZIP, level=level).pack(LARGE)

    assert gzip.decompress(packed.data) == LARGE


@pytest.mark.parametrize(
    ("method", "level"), [(Method.GZIP, 0), (Method.GZIP, 10), (Method.ZSTD, 0), (Method.ZSTD, 23)]
)
def test_a_level_out_of_range_is_refused(method: Method, level: int) -> None:
    """At construction, not at the first payload."""
    with pytest.raises(ValueError, match="levels 1 to"):
        CompressionEngine(method, level=level)


@pytest.mark.parametrize("setting", [{"threshold_bytes": -1}, {"max_raw_bytes": -1}])
def test_a_negative_size_is_refused(setting: dict[str, int]) -> None:
    """Sizes are not negative."""
    with pytest.raises(ValueError, match="negative"):
        CompressionEngine(**setting)  # type: ignore[arg-type]


def test_a_dictionary_makes_small_values_compress_twice_as_well(dictionary: Dictionary) -> None:
    """That is what it is for, and it lowers the threshold."""
    plain = CompressionEngine(Method.ZSTD, threshold_bytes=0).pack(SMALL)
    trained = CompressionEngine(Method.ZSTD, dictionaries=[dictionary]).pack(SMALL)

    assert trained.dictionary_id == dictionary.id
    assert len(trained.data) * 2 < len(plain.data)


def test_payloads_of_earlier_dictionaries_stay_readable(dictionary: Dictionary) -> None:
    """An engine that adopts a new dictionary reads what it wrote with the old one, and without any."""
    engine = CompressionEngine(Method.ZSTD, threshold_bytes=100)
    written = [engine.compress(SMALL)]
    for each in (dictionary, train([record(number)[::-1] for number in range(200)])):
        engine.adopt(each)
        written.append(engine.compress(SMALL))

    assert [engine.decompress(data) for data in written] == [SMALL] * 3
    assert len(set(written)) == 3


def test_a_payload_whose_dictionary_is_unknown_is_corrupt(dictionary: Dictionary) -> None:
    """It is never unpacked with another one."""
    data = CompressionEngine(Method.ZSTD, dictionaries=[dictionary]).compress(SMALL)

    with pytest.raises(CorruptPayload, match="dictionary"):
        CompressionEngine(Method.ZSTD).decompress(data)


def test_a_history_forgets_the_oldest() -> None:
    """It holds so many, and one that is adopted again is young again."""
    first, second, third = (Dictionary.of(bytes([number])) for number in range(3))
    history = DictionaryHistory([first, second, first, third], kept=2)

    assert history.ids() == (first.id, third.id)
    assert history.current == third
    assert history.get(second.id) is None
    with pytest.raises(ValueError, match="kept"):
        DictionaryHistory(kept=0)


@pytest.mark.parametrize("samples", [[SMALL] * 15, [b""] * 16])
def test_samples_that_teach_nothing_are_refused(samples: list[bytes]) -> None:
    """Too few, or empty."""
    with pytest.raises(ValueError, match="samples"):
        train(samples)


def framed(number: int, raw_bytes: int, payload: bytes, dictionary_id: int = 0) -> bytes:
    """A frame with a checksum that matches: what a hostile writer would send."""
    head = struct.pack(">2sBBIQ", b"TZ", 1, number, dictionary_id, raw_bytes)
    return head + struct.pack(">I", zlib.crc32(payload, zlib.crc32(head))) + payload


BOMB = zlib.compress(bytes(10_000_000), 9, 31)
ZSTD_BOMB = zstandard.compress(bytes(10_000_000))
HUGE_CLAIM = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**62) + b"\x01\x00\x00"
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1_000))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", CorruptPayload),
        (framed(0, 3, b"abc")[:-1], CorruptPayload),
        (b"XX" + framed(0, 3, b"abc")[2:], CorruptPayload),
        (framed(7, 3, b"abc"), CorruptPayload),
        (framed(0, 4, b"abc"), CorruptPayload),
        (framed(1, 3, b"abc"), CorruptPayload),
        (framed(2, 3, b"abc"), CorruptPayload),
        (framed(1, 2, zlib.compress(b"abc", 6, 31)), PayloadTooLarge),
        (framed(1, 4, zlib.compress(b"abc", 6, 31)), CorruptPayload),
        (framed(1, 3, zlib.compress(b"abc", 6, 31)[:-1]), CorruptPayload),
        (framed(1, 3, zlib.compress(b"abc", 6, 31) + b"x"), CorruptPayload),
        (framed(1, 1_000, BOMB), PayloadTooLarge),
        (framed(1, 10_000_000, BOMB), PayloadTooLarge),
        (framed(2, 1_000, ZSTD_BOMB), CorruptPayload),
        (framed(2, 10_000_000, ZSTD_BOMB), PayloadTooLarge),
        (framed(2, 2**62, HUGE_CLAIM), PayloadTooLarge),
        (framed(2, 5, HUGE_CLAIM), CorruptPayload),
        (framed(2, 1_000, UNSIZED), CorruptPayload),
        (framed(2, 3, zstandard.compress(b"abc") + b"x"), CorruptPayload),
        (framed(2, 3, zstandard.compress(b"abc")[:-1]), CorruptPayload),
    ],
)
def test_hostile_payloads_are_refused(data: bytes, error: type[CorruptPayload]) -> None:
    """Bombs, liars, the truncated and the extended: each an error, none a wrong answer, and all are counted."""
    engine = CompressionEngine(max_raw_bytes=1_000_000)

    with pytest.raises(error):
        engine.decompress(data)

    assert engine.stats().corrupt == 1


def test_stats_tell_what_was_saved() -> None:
    """Ratio, sizes and counts of what was done."""
    engine = CompressionEngine(Method.GZIP)
    assert engine.stats().ratio == 1.0
    packed = [engine.compress(data) for data in (LARGE, b"small", NOISE)]
    for data in packed:
        engine.decompress(data)
    stats = engine.stats()

    assert (stats.compressed, stats.below_threshold, stats.incompressible) == (1, 1, 1)
    assert (stats.decompressed, stats.raw_bytes) == (1, len(LARGE))
    assert stats.saved_bytes == stats.raw_bytes - stats.packed_bytes > 0
    assert stats.ratio == stats.raw_bytes / stats.packed_bytes > 5
    assert min(stats.compress_ns, stats.decompress_ns) > 0


def test_threads_share_an_engine_unharmed(dictionary: Dictionary) -> None:
    """Zstd's contexts are each thread's own."""
    engine = CompressionEngine(Method.ZSTD, dictionaries=[dictionary])
    wrong: list[int] = []

    def work(first: int) -> None:
        for number in range(first, first + 100):
            data = record(number) * 20
            if engine.decompress(engine.compress(data)) != data:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1_000, 2_000, 3_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> Callable[[], CompressionEngine]:
    """Engines as they are where `zstandard` is not installed."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    return CompressionEngine


def test_without_zstandard_gzip_is_used(without_zstd: Callable[[], CompressionEngine]) -> None:
    """The package is optional; asking for it by name is an error that says what to install."""
    engine = without_zstd()

    assert engine.method is Method.GZIP
    assert engine.decompress(engine.compress(LARGE)) == LARGE
    with pytest.raises(ImportError, match="tidegate"):
        CompressionEngine(Method.ZSTD)


def test_without_zstandard_its_payloads_are_misses(without_zstd: Callable[[], CompressionEngine]) -> None:
    """Another replica may have it."""
    with pytest.raises(CorruptPayload, match="not installed"):
        without_zstd().decompress(framed(2, 3, zstandard.compress(b"abc")))
