"""Encryption keys of the disk level: one to write with, older ones to read with.

A key is a file of exactly 32 random bytes, as `head -c 32 /dev/urandom` makes it. To rotate, add a file whose name
sorts after the others and open the level anew: what was written before stays readable until it expires. To end a key,
remove its file: what it encrypted is then missed, and evicted as the oldest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

from ratelimit_service.cache.errors import InvalidKeyFile

__all__ = ["KEY_BYTES", "KeyRing", "SealingKey"]

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class SealingKey:
    """One key: AES-256-GCM for records, a keyed hash for the names under which they lie.

    Both are derived from the key's bytes, so that neither tells about the other.

    Attributes:
        id: Four bytes that say which key a record needs; never all zero.
    """

    __slots__ = ("_cipher", "_name_key", "id")

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - optional

        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(secret)}")
        self._cipher = AESGCM(blake2b(secret, digest_size=32, person=b"tidegate-record").digest())
        self._name_key = blake2b(secret, digest_size=32, person=b"tidegate-name").digest()
        # The lowest bit is set so that no id is zero, which says "in clear".
        digest = bytearray(blake2b(secret, digest_size=4, person=b"tidegate-key-id").digest())
        digest[3] |= 1
        self.id = bytes(digest)

    def name(self, key: bytes) -> bytes:
        """The name under which a cache key's record lies; it tells nothing about the key."""
        return blake2b(key, digest_size=32, key=self._name_key).digest()

    def seal(self, plain: bytes, bound: bytes) -> bytes:
        """Encrypt; `bound` must be the same when it is opened."""
        # Random nonces of 96 bits: a key is good for 2³² records (NIST SP 800-38D), years of a cache's writes.
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, bound: bytes) -> bytes | None:
        """Decrypt; None if a bit of either was changed."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - optional

        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            return None


class KeyRing:
    """All keys of a level, the one to write with last.

    Raises:
        ValueError: There is no key.
    """

    __slots__ = ("_by_id", "current")

    def __init__(self, keys: Sequence[SealingKey]) -> None:
        if not keys:
            raise ValueError("a key ring needs a key")
        self.current = keys[-1]
        self._by_id = {key.id: key for key in keys}

    @classmethod
    def from_files(cls, paths: Sequence[Path]) -> KeyRing:
        """Keys from files of 32 bytes each; the last one is written with.

        Raises:
            InvalidKeyFile: A file cannot be read or is of another size, or there is none.
        """
        if not paths:
            raise InvalidKeyFile("", "no key file")
        return cls([_read(path) for path in paths])

    @classmethod
    def from_folder(cls, folder: Path) -> KeyRing:
        """Keys from all files of a folder, such as a mounted secret; the name that sorts last is written with.

        Hidden files are passed over: a mounted secret has some of its own.

        Raises:
            InvalidKeyFile: The folder cannot be read, is empty, or holds something else than keys.
        """
        try:
            paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        except OSError as error:
            raise InvalidKeyFile(str(folder), error.strerror or str(error)) from error
        if not paths:
            raise InvalidKeyFile(str(folder), "no key file")
        return cls.from_files(paths)

    def get(self, key_id: bytes) -> SealingKey | None:
        """The key of this id."""
        return self._by_id.get(key_id)

    def newest_first(self) -> list[SealingKey]:
        """All keys, the one to write with first."""
        return list(reversed(self._by_id.values()))


def _read(path: Path) -> SealingKey:
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise InvalidKeyFile(str(path), error.strerror or str(error)) from error
    if len(secret) != KEY_BYTES:
        raise InvalidKeyFile(str(path), f"{KEY_BYTES} bytes expected, {len(secret)} found")
    return SealingKey(secret)
