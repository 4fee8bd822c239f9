"""Compression that is kept only where it pays, and decompression that no payload can abuse.

gzip needs nothing but the standard library; zstd, and with it trained dictionaries, needs `zstandard`.
Values below a threshold, and values that do not shrink by a tenth, are stored as they are.

A compressed value travels either inside an envelope, which says how it was packed (`pack`, `unpack`), or alone in a
frame (`compress`, `decompress`):

    offset  size  field (big-endian)
    0       2     magic, b"TZ"
    2       1     version, 1
    3       1     method's number
    4       4     dictionary's id, 0 for none
    8       8     bytes once unpacked
    16      4     CRC-32 of the 16 bytes before and of the data
    20      …     data
"""

from __future__ import annotations

import enum
import importlib.util
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from ratelimit_service.cache.dictionaries import Dictionary, DictionaryHistory
from ratelimit_service.cache.errors import CorruptPayload, PayloadTooLarge, UnknownDictionary

if TYPE_CHECKING:
    import zstandard

__all__ = ["MAX_RAW_BYTES", "CompressionEngine", "CompressionStats", "Method", "Packed", "has_zstd"]

MAX_RAW_BYTES: Final = 64 * 1024 * 1024
"""Default cap on what a payload may unpack to."""

MIN_RATIO: Final = 1.1
"""A payload that shrinks by less is stored as it is: reading it would cost more than its bytes."""

DICTIONARY_THRESHOLD_BYTES: Final = 128
"""With a dictionary, values this small compress well."""

GZIP_LEVEL_FOR_LIMITS: Final = 4
GZIP_LEVEL: Final = 6
ZSTD_LEVEL: Final = 3

_GZIP_WBITS: Final = 31
"""zlib's spelling of "a gzip container, 32 KiB window"."""

_FRAME: Final = struct.Struct(">2sBBIQ")
_CRC: Final = struct.Struct(">I")
_MAGIC: Final = b"TZ"
_VERSION: Final = 1


class Method(enum.IntEnum):
    """How a payload is packed; the numbers are on disk and in Redis."""

    STORED = 0
    GZIP = 1
    ZSTD = 2


class Packed(msgspec.Struct, frozen=True):
    """A payload as it travels.

    Attributes:
        method: How it is packed.
        dictionary_id: The dictionary that it needs; 0 for none.
        raw_bytes: Its size once unpacked.
        data: The bytes.
    """

    method: Method
    dictionary_id: int
    raw_bytes: int
    data: bytes

    @classmethod
    def stored(cls, data: bytes) -> Packed:
        """Bytes as they are."""
        return cls(Method.STORED, 0, len(data), data)


class CompressionStats(msgspec.Struct, frozen=True):
    """What an engine has done so far.

    Attributes:
        compressed: Payloads that were packed smaller.
        below_threshold: Payloads stored as they are for being small.
        incompressible: Payloads stored as they are because packing gained less than a tenth.
        decompressed: Payloads unpacked, stored ones not counted.
        corrupt: Payloads refused when unpacking.
        raw_bytes, packed_bytes: Sizes before and after, of the compressed payloads.
        compress_ns, decompress_ns: Time spent, in all; attempts that did not pay are included.
    """

    compressed: int
    below_threshold: int
    incompressible: int
    decompressed: int
    corrupt: int
    raw_bytes: int
    packed_bytes: int
    compress_ns: int
    decompress_ns: int

    @property
    def ratio(self) -> float:
        """Size before ÷ size after, of what was compressed; 1.0 while nothing was."""
        return self.raw_bytes / self.packed_bytes if self.packed_bytes else 1.0

    @property
    def saved_bytes(self) -> int:
        """Bytes that compression kept off the wire and the disk."""
        return self.raw_bytes - self.packed_bytes


def has_zstd() -> bool:
    """Say whether zstd can be used: the `zstandard` package is installed."""
    return importlib.util.find_spec("zstandard") is not None


class CompressionEngine:
    """Packs and unpacks payloads. May be used from several threads.

    Args:
        method: `Method.ZSTD`, `Method.GZIP`, or `Method.STORED` to leave everything as it is; None takes zstd where it
            is installed and gzip elsewhere. Whatever is chosen, payloads of every method can be unpacked.
        level: 1–9 for gzip, 1–22 for zstd; None for 6 and 3.
        threshold_bytes: Payloads below are stored as they are; with a dictionary the threshold is at most 128.
        dictionaries: Trained dictionaries, oldest first; the last one is used, by zstd only.
        max_raw_bytes: A payload that unpacks to more is an error.

    Raises:
        ValueError: The level is not one of the method's, or a size is negative.
        ImportError: zstd is asked for and `zstandard` is not installed.
    """

    def __init__(
        self,
        method: Method | None = None,
        *,
        level: int | None = None,
        threshold_bytes: int = 512,
        dictionaries: Iterable[Dictionary] = (),
        max_raw_bytes: int = MAX_RAW_BYTES,
    ) -> None:
        if threshold_bytes < 0 or max_raw_bytes < 0:
            raise ValueError(f"sizes must not be negative: {threshold_bytes}, {max_raw_bytes}")
        zstd = has_zstd()
        if method is None:
            method = Method.ZSTD if zstd else Method.GZIP
        if method is Method.ZSTD and not zstd:
            raise ImportError("zstd compression needs the package zstandard: pip install 'tidegate[cache]'")
        self.method = method
        self.level = _checked_level(method, level)
        self.threshold_bytes = threshold_bytes
        self.max_raw_bytes = max_raw_bytes
        self.dictionaries = DictionaryHistory(dictionaries)
        self._zstd = _ZstdPool(self.level) if zstd else None
        self._counts = dict.fromkeys(CompressionStats.__struct_fields__, 0)

    @classmethod
    def for_limits(cls) -> CompressionEngine:
        """As the `rate-limiting` profile has it: gzip 4 from 512 B."""
        return cls(Method.GZIP, level=GZIP_LEVEL_FOR_LIMITS, threshold_bytes=512)

    def compress(self, data: bytes) -> bytes:
        """Pack a payload into a frame of its own, 20 bytes larger than the data it holds."""
        packed = self.pack(data)
        head = _FRAME.pack(_MAGIC, _VERSION, packed.method.value, packed.dictionary_id, packed.raw_bytes)
        return b"".join((head, _CRC.pack(zlib.crc32(packed.data, zlib.crc32(head))), packed.data))

    def decompress(self, data: bytes) -> bytes:
        """Unpack a frame.

        Raises:
            CorruptPayload: `compress` of this or another engine did not make it, or it was damaged since.
            PayloadTooLarge: It unpacks, or says to unpack, to more than the cap.
        """
        try:
            packed = _read_frame(data)
        except CorruptPayload:
            self._counts["corrupt"] += 1
            raise
        return self.unpack(packed)

    def pack(self, data: bytes) -> Packed:
        """Pack a payload for an envelope."""
        counts = self._counts
        dictionary = self.dictionaries.current if self.method is Method.ZSTD else None
        threshold_bytes = self.threshold_bytes
        if dictionary is not None:
            threshold_bytes = min(threshold_bytes, DICTIONARY_THRESHOLD_BYTES)
        if self.method is Method.STORED or len(data) < threshold_bytes:
            counts["below_threshold"] += 1
            return Packed.stored(data)
        begun_ns = time.perf_counter_ns()
        if self._zstd is not None and self.method is Method.ZSTD:
            smaller = self._zstd.compress(data, dictionary)
        else:
            smaller = zlib.compress(data, self.level, _GZIP_WBITS)
        counts["compress_ns"] += time.perf_counter_ns() - begun_ns
        if len(smaller) * MIN_RATIO > len(data):
            counts["incompressible"] += 1
            return Packed.stored(data)
        counts["compressed"] += 1
        counts["raw_bytes"] += len(data)
        counts["packed_bytes"] += len(smaller)
        return Packed(self.method, dictionary.id if dictionary is not None else 0, len(data), smaller)

    def unpack(self, packed: Packed) -> bytes:
        """Unpack a payload.

        Raises:
            CorruptPayload: Its data is damaged, is of another size than it says, or needs a package that is not here.
            UnknownDictionary: It needs a dictionary that is not here; not counted as corrupt.
            PayloadTooLarge: It unpacks, or says to unpack, to more than the cap.
        """
        try:
            if packed.raw_bytes > self.max_raw_bytes:
                raise PayloadTooLarge(packed.raw_bytes, self.max_raw_bytes)
            data = packed.data if packed.method is Method.STORED else self._expand(packed)
            _check_size(data, packed.raw_bytes)
        except UnknownDictionary:
            raise  # Whoever asks may find it, and ask again.
        except CorruptPayload:
            self._counts["corrupt"] += 1
            raise
        return data

    def adopt(self, dictionary: Dictionary) -> None:
        """Compress with this dictionary from now on; what was packed with earlier ones stays readable."""
        self.dictionaries.adopt(dictionary)

    def stats(self) -> CompressionStats:
        """What was done so far."""
        return CompressionStats(**self._counts)

    def _expand(self, packed: Packed) -> bytes:
        begun_ns = time.perf_counter_ns()
        if packed.method is Method.GZIP:
            data = _gunzip(packed.data, packed.raw_bytes)
        elif self._zstd is None:
            raise CorruptPayload("packed by zstd, which is not installed here")
        else:
            data = self._zstd.decompress(packed.data, packed.raw_bytes, self._dictionary(packed.dictionary_id))
        self._counts["decompress_ns"] += time.perf_counter_ns() - begun_ns
        self._counts["decompressed"] += 1
        return data

    def _dictionary(self, dictionary_id: int) -> Dictionary | None:
        if not dictionary_id:
            return None
        dictionary = self.dictionaries.get(dictionary_id)
        if dictionary is None:
            raise UnknownDictionary(dictionary_id)
        return dictionary


class _ZstdPool(threading.local):
    """zstd's contexts, of which each thread needs its own: two threads in one context crash the process."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._compressors: dict[int, Callable[[bytes], bytes]] = {}
        self._decompressors: dict[int, zstandard.ZstdDecompressor] = {}

    def compress(self, data: bytes, dictionary: Dictionary | None) -> bytes:
        """One frame that says its content's size."""
        number = dictionary.id if dictionary is not None else 0
        compress = self._compressors.get(number)
        if compress is None:
            compress = self._compressors[number] = self._new_compressor(dictionary).compress
        return compress(data)

    def decompress(self, data: bytes, raw_bytes: int, dictionary: Dictionary | None) -> bytes:
        """The content of one frame, which must be of the size that was declared."""
        import zstandard  # noqa: PLC0415 - optional

        try:
            # zstandard allocates what a frame says, so what it says is compared before it is asked.
            declared_bytes = zstandard.frame_content_size(data)
            if declared_bytes != raw_bytes:
                raise CorruptPayload(f"zstd frame of {declared_bytes:,} B, {raw_bytes:,} B declared")
            number = dictionary.id if dictionary is not None else 0
            decompressor = self._decompressors.get(number)
            if decompressor is None:
                decompressor = self._decompressors[number] = self._new_decompressor(dictionary)
            return decompressor.decompress(data, max_output_size=raw_bytes, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise CorruptPayload(f"zstd: {error}") from error

    def _new_compressor(self, dictionary: Dictionary | None) -> zstandard.ZstdCompressor:
        import zstandard  # noqa: PLC0415 - optional

        if dictionary is None:
            return zstandard.ZstdCompressor(level=self._level)
        trained = zstandard.ZstdCompressionDict(dictionary.data)
        # Once here rather than in every call.
        trained.precompute_compress(level=self._level)
        return zstandard.ZstdCompressor(level=self._level, dict_data=trained)

    def _new_decompressor(self, dictionary: Dictionary | None) -> zstandard.ZstdDecompressor:
        import zstandard  # noqa: PLC0415 - optional

        if dictionary is None:
            return zstandard.ZstdDecompressor()
        return zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(dictionary.data))


def _checked_level(method: Method, level: int | None) -> int:
    if method is Method.STORED:
        return 0
    default, most = (ZSTD_LEVEL, 22) if method is Method.ZSTD else (GZIP_LEVEL, 9)
    chosen = default if level is None else level
    if not 1 <= chosen <= most:
        raise ValueError(f"{method.name.lower()} has levels 1 to {most}, not {chosen}")
    return chosen


def _read_frame(data: bytes) -> Packed:
    if len(data) < _FRAME.size + _CRC.size:
        raise CorruptPayload("shorter than a frame's header")
    magic, version, number, dictionary_id, raw_bytes = _FRAME.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise CorruptPayload("no frame of this version")
    (checksum,) = _CRC.unpack_from(data, _FRAME.size)
    payload = data[_FRAME.size + _CRC.size :]
    if zlib.crc32(payload, zlib.crc32(data[: _FRAME.size])) != checksum:
        raise CorruptPayload("checksum does not match")
    try:
        method = Method(number)
    except ValueError:
        raise CorruptPayload(f"unknown compression method {number}") from None
    return Packed(method, dictionary_id, raw_bytes, payload)


def _check_size(data: bytes, raw_bytes: int) -> None:
    if len(data) != raw_bytes:
        raise CorruptPayload(f"{len(data):,} B unpacked, {raw_bytes:,} B declared")


def _gunzip(data: bytes, raw_bytes: int) -> bytes:
    """The content of one gzip member; unpacking stops one byte past the declared size."""
    unpacker = zlib.decompressobj(_GZIP_WBITS)
    try:
        raw = unpacker.decompress(data, raw_bytes + 1)
    except zlib.error as error:
        raise CorruptPayload(f"gzip: {error}") from error
    if len(raw) > raw_bytes:
        raise PayloadTooLarge(len(raw), raw_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise CorruptPayload("gzip: truncated, or followed by something else")
    return raw
