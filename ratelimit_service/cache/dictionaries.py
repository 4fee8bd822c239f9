"""Trained zstd dictionaries: what makes values of a few hundred bytes compress at all.

A dictionary is trained on samples of a cache's own values. Its id is a hash of its content, so replicas that train
alike agree, and two different dictionaries never go by one id. A cache that adopts a new one keeps the ones before,
because entries written with them are still about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

__all__ = ["DICTIONARY_BYTES", "MIN_SAMPLES", "Dictionary", "DictionaryHistory", "train", "train_if_better"]

DICTIONARY_BYTES: Final = 8 * 1024
"""A larger one gains little for values of up to 2 KB and is paid for by every reader."""

MIN_SAMPLES: Final = 16
"""From fewer values a dictionary would only be those values."""

_HELD_OUT: Final = 4
"""One sample in so many is not trained on, but judges."""

_GAIN: Final = 1.1
"""A dictionary that makes payloads smaller by less is not worth a change."""


class Dictionary(msgspec.Struct, frozen=True):
    """A trained dictionary.

    Attributes:
        id: 1 to 2³² - 1, from the content.
        data: The content, as zstd has it.
    """

    id: int
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Dictionary:
        """The dictionary with this content."""
        # 0 says "no dictionary" in every payload.
        return cls(int.from_bytes(blake2b(data, digest_size=4).digest(), "big") or 1, data)


class DictionaryHistory:
    """The dictionary in use, and those before it that payloads may still name.

    Args:
        dictionaries: Oldest first; the last one is in use.
        kept: How many are kept in all; at least 1. A payload whose dictionary is gone is a miss.

    Raises:
        ValueError: `kept` is less than 1.
    """

    def __init__(self, dictionaries: Iterable[Dictionary] = (), *, kept: int = 8) -> None:
        if kept < 1:
            raise ValueError(f"kept must be at least 1: {kept}")
        self._kept = kept
        self._by_id: dict[int, Dictionary] = {}
        self.current: Dictionary | None = None
        for dictionary in dictionaries:
            self.adopt(dictionary)

    def adopt(self, dictionary: Dictionary) -> None:
        """Use this one from now on; forget the oldest where there are too many."""
        # One that is adopted again is the youngest again.
        self._by_id.pop(dictionary.id, None)
        self._by_id[dictionary.id] = dictionary
        self.current = dictionary
        self._trim()

    def know(self, dictionary: Dictionary) -> None:
        """Be able to read what was packed with this one; the one in use stays. The oldest others go for it."""
        if dictionary.id not in self._by_id:
            self._by_id[dictionary.id] = dictionary
            self._trim()

    def _trim(self) -> None:
        while len(self._by_id) > self._kept:
            oldest = next(each for each in self._by_id if self.current is None or each != self.current.id)
            del self._by_id[oldest]

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._by_id)

    def get(self, dictionary_id: int) -> Dictionary | None:
        """The dictionary of this id, if it is kept."""
        return self._by_id.get(dictionary_id)

    def ids(self) -> tuple[int, ...]:
        """Ids of all that are kept, oldest first."""
        return tuple(self._by_id)


def train(samples: Sequence[bytes], *, size_bytes: int = DICTIONARY_BYTES) -> Dictionary:
    """Train a dictionary on values as they are before compression; about 1,000 are plenty.

    Takes some 10 ms per 100 KB of samples, so run it off the event loop.

    Raises:
        ValueError: There are too few samples, or they have too little in common.
        ImportError: The `zstandard` package is not installed.
    """
    import zstandard  # noqa: PLC0415 - optional, and imported only where dictionaries are trained

    if len(samples) < MIN_SAMPLES:
        raise ValueError(f"{len(samples)} samples; at least {MIN_SAMPLES} are needed")
    try:
        trained = zstandard.train_dictionary(size_bytes, list(samples))
    except zstandard.ZstdError as error:
        raise ValueError(f"the samples give no dictionary: {error}") from error
    return Dictionary.of(trained.as_bytes())


def train_if_better(samples: Sequence[bytes], level: int, current: Dictionary | None) -> Dictionary | None:
    """Train on three of four samples; None unless the fourth packs a tenth smaller than with the dictionary in use.

    Args:
        samples: At least a hundred or so; fewer, or such as have nothing in common, give None.
        level: Of zstd.
        current: The one in use; None: none is.

    Raises:
        ImportError: The `zstandard` package is not installed.
    """
    judges = samples[::_HELD_OUT]
    try:
        trained = train([each for at, each in enumerate(samples) if at % _HELD_OUT])
    except ValueError:
        return None
    before, after = (_packed_bytes(judges, level, each) for each in (current, trained))
    return trained if after * _GAIN <= before else None


def _packed_bytes(samples: Sequence[bytes], level: int, dictionary: Dictionary | None) -> int:
    import zstandard  # noqa: PLC0415 - as above

    data = None if dictionary is None else zstandard.ZstdCompressionDict(dictionary.data)
    compressor = zstandard.ZstdCompressor(level=level, dict_data=data)
    return sum(len(compressor.compress(each)) for each in samples)
