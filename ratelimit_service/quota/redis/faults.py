"""What goes wrong with a Redis, in few words that stay the same: the labels of metrics and health."""

from __future__ import annotations

import enum
import re
import ssl
from collections.abc import Mapping
from typing import Final

import msgspec
from redis import exceptions

from ratelimit_service.errors import TidegateError

__all__ = [
    "LossReason",
    "Redirect",
    "ScriptError",
    "StoreLost",
    "loss_of_connection",
    "loss_of_reply",
    "read_redirect",
    "script_error",
]


class LossReason(enum.Enum):
    """Why nobody counts. The value is the label `reason`."""

    ABSENT = "absent"
    """There is no connection: none could be made yet, or none is left."""
    BREAKER = "breaker"
    """The breaker is open: it is not asked."""
    TIMEOUT = "timeout"
    """No answer in time."""
    DISCONNECTED = "disconnected"
    """The connection broke, or was refused."""
    TLS = "tls"
    """The certificate of one side is not accepted."""
    AUTH = "auth"
    """User or password are wrong or missing."""
    DENIED = "denied"
    """The user may not use a command or a key that is needed."""
    LOADING = "loading"
    """It is reading its data from disk."""
    READONLY = "readonly"
    """It is a replica."""
    OOM = "oom"
    """It is full."""
    BUSY = "busy"
    """A script of somebody else holds it."""
    MISCONFIGURED = "misconfigured"
    """It refuses writes: snapshots fail, or too few replicas are there."""
    CLUSTER_DOWN = "cluster_down"
    """Its cluster has no owner for some slot, or it has no link to its master."""
    FULL_OF_CLIENTS = "max_clients"
    """It takes no more connections."""
    MOVING = "moving"
    """The key's slot is on its way to another node."""
    CLOSED = "closed"
    """This side is closing."""


class StoreLost(TidegateError):
    """A round trip counted nothing that is known of; what it may have counted is never spent.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: LossReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason


class ScriptError(msgspec.Struct, frozen=True):
    """A command's own error, among the replies of others that succeeded.

    Attributes:
        code: First word of Redis's message, `ERR` where it has none.
        message: The rest of it.
    """

    code: str
    message: str


class Redirect(msgspec.Struct, frozen=True):
    """Where a call belongs. Source: Redis cluster specification, "Redirection and resharding".

    Attributes:
        slot: Of its key.
        host: Empty: the host that was asked.
        port: There.
        asking: Only this once, and ASKING goes before it.
    """

    slot: int
    host: str
    port: int
    asking: bool


_CODE: Final = re.compile(r"[A-Z][A-Z0-9]+\Z")

_INNER_CODE: Final = re.compile(r" -([A-Z]+) ")
"""Before Redis 7 the error of a command within a script is wrapped: `ERR Error running script …: -OOM …`."""

_REASONS: Final[Mapping[str, LossReason]] = {
    "OOM": LossReason.OOM,
    "READONLY": LossReason.READONLY,
    "LOADING": LossReason.LOADING,
    "BUSY": LossReason.BUSY,
    "NOAUTH": LossReason.AUTH,
    "WRONGPASS": LossReason.AUTH,
    "NOPERM": LossReason.DENIED,
    "MISCONF": LossReason.MISCONFIGURED,
    "NOREPLICAS": LossReason.MISCONFIGURED,
    "CLUSTERDOWN": LossReason.CLUSTER_DOWN,
    "MASTERDOWN": LossReason.CLUSTER_DOWN,
    "MOVED": LossReason.MOVING,
    "ASK": LossReason.MOVING,
    "TRYAGAIN": LossReason.MOVING,
}
"""Errors that say something of the server, not of the command."""


def script_error(text: str) -> ScriptError:
    """Read an error reply."""
    code, _, message = text.partition(" ")
    if not _CODE.match(code):
        return ScriptError("ERR", text)
    inner = _INNER_CODE.search(message) if code == "ERR" else None
    return ScriptError(inner[1] if inner else code, message)


def read_redirect(reply: object) -> Redirect | None:
    """Read `MOVED slot host:port` or `ASK slot host:port`; None: it is neither."""
    if not isinstance(reply, ScriptError) or reply.code not in {"MOVED", "ASK"}:
        return None
    slot, _, where = reply.message.partition(" ")
    host, _, port = where.rpartition(":")
    if not (slot.isdigit() and port.isdigit()):
        return None
    return Redirect(int(slot), host.strip("[]"), int(port), asking=reply.code == "ASK")


def loss_of_reply(error: ScriptError) -> LossReason | None:
    """What an error reply says of the server; None: it is the command's own fault."""
    return _REASONS.get(error.code)


_LOSS_OF_CLASS: Final = (
    # The library's exceptions while it connects; it takes the first word off the message.
    (exceptions.BusyLoadingError, LossReason.LOADING),
    (exceptions.AuthenticationError, LossReason.AUTH),
    (exceptions.ResponseError, LossReason.DENIED),
    (exceptions.TimeoutError, LossReason.TIMEOUT),
    (TimeoutError, LossReason.TIMEOUT),
)


def loss_of_connection(error: BaseException) -> StoreLost:
    """Why a connection could not be made, or broke."""
    text = str(error)
    for kind, reason in _LOSS_OF_CLASS:
        if isinstance(error, kind):
            return StoreLost(reason, text)
    if "max number of clients" in text:
        return StoreLost(LossReason.FULL_OF_CLIENTS, text)
    # The library wraps what happens on the socket; the origin says more.
    origin: BaseException | None = error
    while origin is not None:
        if isinstance(origin, ssl.SSLError):
            return StoreLost(LossReason.TLS, str(origin))
        origin = origin.__cause__ or origin.__context__
    return StoreLost(LossReason.DISCONNECTED, text)
