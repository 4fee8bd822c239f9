"""What the process that holds the stream and the one that serves tell each other; lengths as in `sources.frames`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import DomainPlan
from ratelimit_service.policy.problems import Problem
from ratelimit_service.sources.frames import (
    HEADER_BYTES,
    LEAVES_PER_FRAME,
    DomainBegins,
    DomainEnds,
    Leaves,
    SetEnds,
    SetRefused,
)
from ratelimit_service.xds_address import XdsAddress


class ClientSettings(msgspec.Struct, frozen=True):
    """First message to the child."""

    address: XdsAddress
    options: CompileOptions


class Outcome(msgspec.Struct, frozen=True):
    """What became of a set: later messages to the child; no problems: it is in force."""

    problems: tuple[Problem, ...] = ()


class ChangeBegins(msgspec.Struct, frozen=True, tag=True):
    """Domains follow that are new or changed, and in the end the names of those that are gone.

    Attributes:
        version: Of the set that they lead to.
        shadow: The kill switch of that set.
        warnings: Of that set.
        load_us: From the response to here.
        whole: Everything follows, and whatever was in force before is gone.
        origin: `stream`, or the folder that the set was read from.
    """

    version: str
    shadow: bool
    warnings: tuple[Problem, ...]
    load_us: int
    whole: bool
    origin: str


class DomainsGone(msgspec.Struct, frozen=True, tag=True):
    """Domains that are not in the set any more."""

    names: tuple[str, ...]


class Waiting(msgspec.Struct, frozen=True, tag=True):
    """There is nothing on disk to begin with."""


class Connection(msgspec.Struct, frozen=True, tag=True):
    """A stream is there, or not any more.

    Attributes:
        connected: Which of them.
        address: Of the server; several addresses tried in vain are parted by commas.
        reason: Why there is none.
    """

    connected: bool
    address: str
    reason: str = ""


class Told(msgspec.Struct, frozen=True, tag=True):
    """Something for the log, of which nothing depends."""

    message: str


ClientFrame = (
    ChangeBegins | DomainBegins | Leaves | DomainEnds | DomainsGone | SetEnds | SetRefused | Waiting | Connection | Told
)
"""Any message from the child."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[ClientFrame]] = msgspec.msgpack.Decoder(ClientFrame)
_SETTINGS: Final = msgspec.msgpack.Decoder(ClientSettings)
_OUTCOMES: Final = msgspec.msgpack.Decoder(Outcome)


def encode(frame: ClientFrame | ClientSettings | Outcome) -> bytes:
    """One message with its length before it."""
    content = _ENCODER.encode(frame)
    return len(content).to_bytes(HEADER_BYTES, "big") + content


def decode(content: bytes) -> ClientFrame:
    """A message from the child; raises msgspec.DecodeError if it is none."""
    return _DECODER.decode(content)


def decode_settings(content: bytes) -> ClientSettings:
    """The first message to the child; raises msgspec.DecodeError if it is none."""
    return _SETTINGS.decode(content)


def decode_outcome(content: bytes) -> Outcome:
    """A later message to the child; raises msgspec.DecodeError if it is none."""
    return _OUTCOMES.decode(content)


def change_frames(begins: ChangeBegins, changed: list[DomainPlan], gone: list[str]) -> Iterator[ClientFrame]:
    """A change as messages."""
    yield begins
    for plan in changed:
        yield DomainBegins(plan.head)
        for start in range(0, len(plan.leaves), LEAVES_PER_FRAME):
            yield Leaves(plan.leaves[start : start + LEAVES_PER_FRAME])
        yield DomainEnds()
    yield DomainsGone(tuple(gone))
    yield SetEnds()
