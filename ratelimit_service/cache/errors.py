"""What can go wrong in the value cache; every class is a `TidegateError`."""

from __future__ import annotations

from ratelimit_service.errors import TidegateError

__all__ = [
    "CacheError",
    "CorruptPayload",
    "InvalidKeyFile",
    "LevelUnavailable",
    "PayloadTooLarge",
    "UnencodableValue",
    "UnknownDictionary",
]


class CacheError(TidegateError):
    """Base of the cache's errors."""


class CorruptPayload(CacheError):
    """Bytes are not what this cache wrote: damaged, truncated, forged, or of a later version.

    The cache takes it for a miss and counts it; it is never retried.

    Attributes:
        reason: What was found, without any of the payload.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownDictionary(CorruptPayload):
    """A payload was packed with a dictionary that is not known here; it is sound for who has it.

    Attributes:
        dictionary_id: Which.
    """

    def __init__(self, dictionary_id: int) -> None:
        super().__init__(f"packed with dictionary {dictionary_id:08x}, which is not known here")
        self.dictionary_id = dictionary_id


class PayloadTooLarge(CorruptPayload):
    """A payload says, or turns out, to be larger than the cap once unpacked.

    Attributes:
        declared_bytes: The size it declares; for one that lies, the size at which unpacking was given up.
        max_bytes: The cap.
    """

    def __init__(self, declared_bytes: int, max_bytes: int) -> None:
        super().__init__(f"{declared_bytes:,} B unpacked, {max_bytes:,} B allowed")
        self.declared_bytes = declared_bytes
        self.max_bytes = max_bytes


class UnencodableValue(CacheError):
    """The codec cannot write this value; the value is not cached outside memory.

    Attributes:
        codec: The codec's name.
        reason: What it says about the value.
    """

    def __init__(self, codec: str, reason: str) -> None:
        super().__init__(f"{codec}: {reason}")
        self.codec = codec
        self.reason = reason


class LevelUnavailable(CacheError):
    """A level of the cache did not answer, so whether it holds the key is unknown.

    The cache goes on without that level, reports it, and tries it again later.

    Attributes:
        level: `l2` or `l3`.
        reason: What it said.
    """

    def __init__(self, level: str, reason: str) -> None:
        super().__init__(f"{level}: {reason}")
        self.level = level
        self.reason = reason


class InvalidKeyFile(CacheError):
    """A file that should hold an encryption key of 32 bytes does not.

    Attributes:
        path: The file.
        reason: What is wrong with it; never its content.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
