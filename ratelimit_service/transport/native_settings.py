"""How the native transport behaves towards its clients, and what it counts."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_US_PER_S = 1_000_000


class NativeSettings(msgspec.Struct, frozen=True):
    """How the server behaves towards its clients.

    Attributes:
        longest_answer_us: Every answer is owed within this, or 0.8 of the client's own deadline (DECISIONS 29).
        max_message_bytes: A longer message is RESOURCE_EXHAUSTED.
        max_streams: Calls under way on one connection; Envoy sends all its traffic over few.
        max_watches: Health watches among them.
        max_connections: More are closed as they come.
        max_held_bytes: What all connections together may keep of requests that have not come whole; beyond it the one
            that holds the most is closed.
        max_age_us: A connection is told to leave after this, ±10 %, so that load spreads over new replicas; 0: never.
        max_idle_us: Where there is no `max_age_us`: a connection without calls is told to leave after this. Longer
            than Envoy's own hour, so that Envoy is the one to close.
        leave_grace_us: How long the calls of a connection that was told to leave may go on.
        heed_us: How long it may take to show that it heard before new calls are refused.
        settle_us: Time for a new connection's preface and SETTINGS, and for its TLS handshake.
        stall_us: Time for what a client has begun: a frame, a request, or reading an answer. Noticed within twice it.
        sweep_us: How often all connections are looked at.
    """

    longest_answer_us: int = 10_000
    max_message_bytes: int = 4 * 2**20
    max_streams: int = 1_000
    max_watches: int = 100
    max_connections: int = 10_000
    max_held_bytes: int = 256 * 2**20
    max_age_us: int = 1_800 * _US_PER_S
    max_idle_us: int = 4_500 * _US_PER_S
    leave_grace_us: int = 10 * _US_PER_S
    heed_us: int = 2 * _US_PER_S
    settle_us: int = 10 * _US_PER_S
    stall_us: int = 10 * _US_PER_S
    sweep_us: int = _US_PER_S


class NativeStats(msgspec.Struct, frozen=True):
    """What the transport has counted since its start.

    Attributes:
        accepted: Connections taken.
        refused: Connections closed as they came: too many, or TLS without HTTP/2.
        open: Connections now.
        streams: Calls begun, those of connections that are open included.
        held_bytes: What is kept now of requests that have not come whole.
        abuse: Connections closed for it, by kind; every kind is there from the start.
    """

    accepted: int
    refused: int
    open: int
    streams: int
    held_bytes: int
    abuse: Mapping[str, int]
