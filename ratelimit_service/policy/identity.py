"""Names of counters: which hits are counted together (DECISIONS 8).

Every field is length-prefixed, so that different values never give the same bytes:
(`a`, `b_c`) and (`a_b`, `c`) differ.
The bytes are kept by stores across reloads and shared by replicas: changing them forgets every count.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from ratelimit_service.algorithms.limit import Algorithm, Limit

MAX_PLAIN_BYTES: Final = 128
"""Longest value that is part of a key as it is; a longer one is replaced by its digest (DECISIONS 1)."""

_DIGEST_BYTES: Final = 16
# A length byte says 0 to 128, so this one begins no plain value.
_DIGEST_MARK: Final = b"\xff"
_LENGTHS: Final = tuple(bytes((length,)) for length in range(MAX_PLAIN_BYTES + 1))

_FORM: Final = b"\x01"
_ALGORITHMS: Final = {
    Algorithm.FIXED_WINDOW: b"f",
    Algorithm.SLIDING_WINDOW: b"s",
    Algorithm.TOKEN_BUCKET: b"t",
}


def limit_id(domain: str, rule: str, limit: Limit) -> bytes:
    """Identity of a limit: (domain, rule name or YAML path, algorithm, window or calendar).

    `requests`, `burst`, mode and order are not in it: changing them keeps the count.
    """
    if limit.calendar is None:
        window = b"w" + struct.pack(">Q", limit.window_us)
    else:
        window = b"c" + _field(limit.calendar.unit.value.encode()) + _field(limit.calendar.time_zone.encode())
    # `surrogatepass`: a name is text that came from bytes, and no text may raise here.
    names = _field(domain.encode(errors="surrogatepass")) + _field(rule.encode(errors="surrogatepass"))
    return _FORM + names + _ALGORITHMS[limit.algorithm] + window


def _field(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def counter_key(values: Sequence[bytes]) -> bytes:
    """Key of one counter of a limit: the counted values, in order.

    At most 129 bytes a value. Two lists of values give one key only if they are equal
    (above 128 bytes: if their BLAKE2b-128 digests are).
    """
    if len(values) == 1 and len(values[0]) <= MAX_PLAIN_BYTES:
        # Most keys are one short value, and each new one passes here.
        return _LENGTHS[len(values[0])] + values[0]
    return b"".join([part for value in values for part in _parts(value)])


def _parts(value: bytes) -> tuple[bytes, bytes]:
    if len(value) <= MAX_PLAIN_BYTES:
        return _LENGTHS[len(value)], value
    return _DIGEST_MARK, blake2b(value, digest_size=_DIGEST_BYTES).digest()


def shown_values(key: bytes) -> list[str]:
    """The values of a `counter_key`, to be read by people.

    Bytes that are no UTF-8 show as escapes, and a value that was too long as `blake2b:` and its digest.
    Other bytes, such as the text keys of envoyproxy/ratelimit, are one value.
    """
    values, at = [], 0
    while at < len(key):
        is_digest = key[at : at + 1] == _DIGEST_MARK
        end = at + 1 + (_DIGEST_BYTES if is_digest else key[at])
        if end > len(key) or not (is_digest or key[at] <= MAX_PLAIN_BYTES):
            return [_shown(key)]
        value = key[at + 1 : end]
        values.append(f"blake2b:{value.hex()}" if is_digest else _shown(value))
        at = end
    return values


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def stable_percent(key: bytes) -> int:
    """Where a counter key stands in a rollout: 0 to 99, evenly spread, the same on every replica and release."""
    digest = blake2b(key, digest_size=8, person=b"tidegate-rollout").digest()
    return int.from_bytes(digest, "big") % 100
