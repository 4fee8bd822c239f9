"""gRPC status codes and the error value that a decision may end in.

Source: grpc/grpc `doc/statuscodes.md`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias

import msgspec


class GrpcCode(enum.IntEnum):
    """Canonical gRPC status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class GrpcError(msgspec.Struct, frozen=True):
    """A call that ends without a message. A value, not an exception: it is returned by `decide`."""

    code: GrpcCode
    message: str


Answer: TypeAlias = bytes | GrpcError
"""How a unary call ends: the message's bytes, or an error."""
Reply: TypeAlias = Callable[[Answer], None]
"""Takes the answer of a call that could not be decided at once."""
