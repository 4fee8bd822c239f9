"""What is answered with an error instead of a verdict, and in which words (DECISIONS 1).

Only what Envoy's configuration got wrong is refused, never what a client of Envoy can shape: an error lets the
request through. In compat mode every refusal is UNKNOWN, as all errors of envoyproxy/ratelimit are
(src/service/ratelimit.go of that project).
"""

from __future__ import annotations

from typing import Final

from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.messages import Request, Unit

MOST_DESCRIPTORS: Final = 256
"""Descriptors of one request: ten times what Envoy's filters send, and a bound on the work of one call."""

UNIT_SECONDS: Final = {
    Unit.SECOND: 1,
    Unit.MINUTE: 60,
    Unit.HOUR: 3_600,
    Unit.DAY: 86_400,
    Unit.WEEK: 604_800,
    Unit.MONTH: 2_592_000,
    Unit.YEAR: 31_536_000,
}
"""Windows of envoyproxy/ratelimit's units: a month has 30 days, a year 365 (DECISIONS 9)."""

_EMPTY_DOMAIN: Final = "domain: must not be empty"
_NO_DESCRIPTORS: Final = "descriptors: must not be empty"
_NO_CONFIGURATION: Final = "no configuration yet"
_UPSTREAM_WORDS: Final = {
    _EMPTY_DOMAIN: "rate limit domain must not be empty",
    _NO_DESCRIPTORS: "rate limit descriptor list must not be empty",
    _NO_CONFIGURATION: "no rate limit configuration loaded",
}

NO_CONFIGURATION: Final = GrpcError(GrpcCode.UNAVAILABLE, _NO_CONFIGURATION)
"""Answers every good request until there is a first snapshot."""

STORE_ERROR: Final = GrpcError(GrpcCode.UNKNOWN, "redis error")
"""In compat mode: the store is away, or has no room."""


def refusal(request: Request) -> GrpcError | None:
    """Say what is wrong with the request's frame, naming the field; None: nothing."""
    if not request.domain:
        return GrpcError(GrpcCode.INVALID_ARGUMENT, _EMPTY_DOMAIN)
    if not request.descriptors:
        return GrpcError(GrpcCode.INVALID_ARGUMENT, _NO_DESCRIPTORS)
    count = len(request.descriptors)
    if count > MOST_DESCRIPTORS:
        return GrpcError(GrpcCode.INVALID_ARGUMENT, f"descriptors: {count}, at most {MOST_DESCRIPTORS} are allowed")
    return None


def override_refusal(request: Request) -> GrpcError | None:
    """Say which descriptor carries a limit without a unit; None: none does.

    Separate from `refusal`, because envoyproxy/ratelimit looks at overrides of known domains only.
    """
    for index, descriptor in enumerate(request.descriptors):
        override = descriptor.override
        if override is not None and override.unit not in UNIT_SECONDS:
            message = f"descriptors[{index}].limit.unit: {override.unit} is no unit, use SECOND (1) to WEEK (7)"
            return GrpcError(GrpcCode.INVALID_ARGUMENT, message)
    return None


def as_upstream(error: GrpcError) -> GrpcError:
    """The same refusal in compat mode: UNKNOWN, in the original's words where it has any."""
    return GrpcError(GrpcCode.UNKNOWN, _UPSTREAM_WORDS.get(error.message, error.message))
