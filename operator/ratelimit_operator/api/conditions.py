"""Conditions and reasons of our objects, each with the sentence that says when it holds.

A condition is written on first sight. `Programmed` and `Attached` are absent where they do not apply: the first while
the object is not accepted and never was, the second for policies with a `domain`.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec
from msgspec import Meta


class ConditionType(enum.Enum):
    """What a condition is about."""

    ACCEPTED = "Accepted"
    """True: the spec is valid and allowed, so this form is (or replaces) what is live."""
    RESOLVED_REFS = "ResolvedRefs"
    """True: the profile and the secrets that it names are there and may be used."""
    ATTACHED = "Attached"
    """Targeted policies only. True: what makes Envoy ask has been written for every target."""
    PROGRAMMED = "Programmed"
    """True: every replica of the service has acknowledged this very form."""
    READY = "Ready"
    """True: all the others are; what `kubectl wait --for=condition=Ready` waits for."""


class ConditionStatus(enum.Enum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(enum.Enum):
    """Why a condition has its status; a condition that is True has its own name as reason."""

    ACCEPTED = "Accepted"
    """The spec is valid and allowed."""
    INVALID = "Invalid"
    """The spec breaks a rule that the schema cannot check; the message lists every field."""
    CONFLICTED = "Conflicted"
    """An older object has what only one may have; the message names it."""
    NOT_ALLOWED = "NotAllowed"
    """The namespace may not use this domain, override, store or default."""
    TARGET_NOT_FOUND = "TargetNotFound"
    """No such Gateway or route, or no such section in it."""
    RESOLVED_REFS = "ResolvedRefs"
    """Everything that it names is there and may be used."""
    CACHE_PROFILE_NOT_FOUND = "CacheProfileNotFound"
    """There is no CacheProfile of this name; what was live before goes on."""
    REF_NOT_PERMITTED = "RefNotPermitted"
    """The CacheProfile is not shared with this namespace, or is not accepted itself."""
    SECRET_NOT_MOUNTED = "SecretNotMounted"  # noqa: S105 — a reason's name
    """The service has no such secret mounted, so the store cannot be opened."""
    ATTACHED = "Attached"
    """Envoy asks for every target."""
    NO_INTEGRATION = "NoIntegration"
    """Nothing makes Envoy ask for this target by itself; the message says what to run."""
    UNSUPPORTED_TARGET = "UnsupportedTarget"
    """The kind of the target, or its class, is not one that can be attached to."""
    AMBIGUOUS_ROUTE_NAME = "AmbiguousRouteName"
    """Another tenant's route has the same name in a virtual host that both share."""
    PROGRAMMED = "Programmed"
    """Every replica runs this form."""
    PARTIALLY_PROGRAMMED = "PartiallyProgrammed"
    """Some replicas run this form, others not yet."""
    NO_REPLICAS = "NoReplicas"
    """There is no replica of the service."""
    REJECTED = "Rejected"
    """Replicas refused this form; the last one that they accepted stays live."""
    OVERRIDDEN = "Overridden"
    """Every rule of the policy is overridden by older or higher policies."""
    RECONCILING = "Reconciling"
    """Pushed, and no replica has answered yet."""
    PENDING = "Pending"
    """Not looked at yet."""
    READY = "Ready"
    """All conditions are True."""
    NOT_READY = "NotReady"
    """The message names the condition that is not True."""


TRUE_REASONS: Final = {
    ConditionType.ACCEPTED: Reason.ACCEPTED,
    ConditionType.RESOLVED_REFS: Reason.RESOLVED_REFS,
    ConditionType.ATTACHED: Reason.ATTACHED,
    ConditionType.PROGRAMMED: Reason.PROGRAMMED,
    ConditionType.READY: Reason.READY,
}
"""Reason of a condition that is True."""

MAX_MESSAGE: Final = 4096
"""Longest message that is written, in characters; a longer one is cut and says so."""


class Verdict(msgspec.Struct, frozen=True):
    """A condition as it is decided, before the API gives it times.

    Attributes:
        type: What it is about.
        status: Whether it holds.
        reason: Why.
        message: For people; empty where the reason says it all.
    """

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is True."""
        return self.status is ConditionStatus.TRUE


def holding(type_: ConditionType, message: str = "") -> Verdict:
    """A condition that is True."""
    return Verdict(type_, ConditionStatus.TRUE, TRUE_REASONS[type_], message)


def failing(type_: ConditionType, reason: Reason, message: str) -> Verdict:
    """A condition that is False."""
    return Verdict(type_, ConditionStatus.FALSE, reason, shortened(message))


def shortened(text: str, most: int = MAX_MESSAGE) -> str:
    """A message that fits its field."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


class Condition(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One condition as it stands in an object's status."""

    type: Annotated[str, Meta(min_length=1, max_length=316, description="What it is about")]
    status: Annotated[ConditionStatus, Meta(description="Whether it holds")]
    observed_generation: Annotated[
        int, Meta(ge=0, le=1 << 62, description="Generation of the object that it is about")
    ] = 0
    last_transition_time: Annotated[
        str, Meta(max_length=64, description="When `status` last changed", extra={"format": "date-time"})
    ]
    reason: Annotated[str, Meta(min_length=1, max_length=1024, description="Why, as one word for programs")]
    message: Annotated[str, Meta(max_length=32768, description="Why, for people")]
