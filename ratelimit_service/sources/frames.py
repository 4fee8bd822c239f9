"""What the watching process tells the serving one: small messages, each cheap to decode.

On the pipe a message is its length (4 bytes, big-endian) and its MessagePack. A set is `SetBegins`, then for each
domain `DomainBegins`, `Leaves`… and `DomainEnds`, then `SetEnds`; or one `SetRefused`. No message needs more than about
a quarter of a millisecond to decode, which is why leaves come 32 at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import DomainHead, version_of
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.tree import Leaf

if TYPE_CHECKING:
    # It brings the compiler along, which only the process that sends sets needs.
    from ratelimit_service.sources.loading import Loaded

LEAVES_PER_FRAME: Final = 32
"""Rules that are decoded at one go."""

MAX_PROBLEMS: Final = 1_000
"""Problems that are reported of one set; the rest is counted in the last one."""

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Longest message; a longer one means that the two sides have lost step."""

HEADER_BYTES: Final = 4
"""Length of the length."""


class WatchSettings(msgspec.Struct, frozen=True):
    """First and only message to the watching process."""

    paths: tuple[str, ...]
    options: CompileOptions
    poll_ms: int


class SetBegins(msgspec.Struct, frozen=True, tag=True):
    """A set follows; `warnings` do not refuse it. `load_us`: time from reading its files to here."""

    version: str
    warnings: tuple[Problem, ...]
    load_us: int


class DomainBegins(msgspec.Struct, frozen=True, tag=True):
    """Leaves of this domain follow."""

    head: DomainHead


class Leaves(msgspec.Struct, frozen=True, tag=True):
    """Leaves of the open domain, in config order."""

    leaves: tuple[Leaf, ...]


class DomainEnds(msgspec.Struct, frozen=True, tag=True):
    """The open domain is complete."""


class SetEnds(msgspec.Struct, frozen=True, tag=True):
    """The set is complete."""


class SetRefused(msgspec.Struct, frozen=True, tag=True):
    """A set was read and is refused."""

    problems: tuple[Problem, ...]
    load_us: int


Frame = SetBegins | DomainBegins | Leaves | DomainEnds | SetEnds | SetRefused
"""Any message from the watching process."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Frame]] = msgspec.msgpack.Decoder(Frame)
_SETTINGS_DECODER: Final = msgspec.msgpack.Decoder(WatchSettings)


def encode_frame(frame: Frame | WatchSettings) -> bytes:
    """One message with its length before it."""
    content = _ENCODER.encode(frame)
    return len(content).to_bytes(HEADER_BYTES, "big") + content


def decode_frame(content: bytes) -> Frame:
    """One message without its length; raises msgspec.DecodeError if it is none."""
    return _DECODER.decode(content)


def decode_settings(content: bytes) -> WatchSettings:
    """The settings without their length; raises msgspec.DecodeError if they are none."""
    return _SETTINGS_DECODER.decode(content)


def frames_of(loaded: Loaded, load_us: int) -> Iterator[Frame]:
    """A loaded set as messages."""
    problems = _capped(loaded.problems)
    if loaded.refused:
        yield SetRefused(problems, load_us)
        return
    yield SetBegins(version_of(loaded.plans), problems, load_us)
    for plan in loaded.plans:
        yield DomainBegins(plan.head)
        for start in range(0, len(plan.leaves), LEAVES_PER_FRAME):
            yield Leaves(plan.leaves[start : start + LEAVES_PER_FRAME])
        yield DomainEnds()
    yield SetEnds()


def _capped(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    # Errors first: a warning must not push the reason for a refusal out of the list.
    kept = sorted(problems, key=lambda problem: problem.severity.value)[:MAX_PROBLEMS]
    rest = len(problems) - MAX_PROBLEMS
    return (*kept, Problem("policies", "", f"and {rest} more problems", 0, kept[-1].severity))
