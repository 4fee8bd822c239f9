"""What the connections of one native transport share: limits, counts, one timer, one flush of late answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.telemetry.tracing import Tracing
from ratelimit_service.transport.contract import Decider
from ratelimit_service.transport.health import HealthBoard
from ratelimit_service.transport.native_settings import NativeSettings, NativeStats
from ratelimit_service.transport.native_turns import MOST_BYTES, Turns
from ratelimit_service.wire.grpc.calls import PREFIX_BYTES
from ratelimit_service.wire.http2.budgets import Abuse
from ratelimit_service.wire.http2.events import ConnectionLimits

if TYPE_CHECKING:
    from ratelimit_service.transport.native_connection import NativeConnection

_US_PER_S: Final = 1_000_000
_SLICE: Final = 250
"""Connections looked at in one go: well below a millisecond."""
_AGE_SPREAD: Final = 0.1


class Hub:
    """Belongs to one event loop. Times are boot times in microseconds.

    Args:
        decider: Decides each call.
        clock: One reading of the clocks.
        settings: Behaviour towards clients.
        durations: Takes the time from read to write of each call; None: not measured here.
        tracing: Follows calls whose callers want it; None: none.

    Attributes:
        health: What the health service answers.
        wire_limits: Of each connection.
        buffer: What is read goes here first.
        turns: Clients that have more to say than is read at one go.
        draining: No new connection is taken.
        changed: Is called whenever a connection has come or gone; None: nobody asks.
        connections: All that are open.
    """

    def __init__(
        self,
        decider: Decider,
        clock: Callable[[], Instant],
        settings: NativeSettings,
        durations: Histogram | None,
        tracing: Tracing | None = None,
    ) -> None:
        self.decide: Final = decider.decide
        self.clock: Final = clock
        self.settings: Final = settings
        self.durations: Final = durations
        self.health: Final = HealthBoard()
        self.wire_limits: Final = ConnectionLimits(
            streams=settings.max_streams,
            body_bytes=settings.max_message_bytes + PREFIX_BYTES,
            trace_field=b"" if tracing is None else b"traceparent",
        )
        self.tracing: Final = tracing
        self.buffer: Final = memoryview(bytearray(MOST_BYTES))
        self.turns: Final = Turns()
        self.draining = False
        self.changed: Callable[[], None] | None = None
        self.connections: dict[NativeConnection, None] = {}
        self._abuse = dict.fromkeys(Abuse, 0)
        self._accepted = self._refused = self._closed_streams = self._held_bytes = 0
        self._late: dict[NativeConnection, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────────

    def admit(self, connection: NativeConnection) -> bool:
        """Take a new connection; False: there are too many."""
        if len(self.connections) >= self.settings.max_connections:
            self._refused += 1
            return False
        self._accepted += 1
        self.connections[connection] = None
        self._empty.clear()
        if self._timer is None:
            self._set_timer()
        if self.changed is not None:
            self.changed()
        return True

    def count_refused(self) -> None:
        """A connection was closed as it came."""
        self._refused += 1

    def dismiss(self, connection: NativeConnection, streams: int) -> None:
        """A connection has ended, after so many calls; one that was not admitted is passed over."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        self._late.pop(connection, None)
        self.turns.forget(connection)
        self._closed_streams += streams
        if not self.connections:
            self._empty.set()
        if self.changed is not None:
            self.changed()

    def count_abuse(self, kind: Abuse) -> None:
        """A connection was closed for `kind`."""
        self._abuse[kind] += 1

    def hold(self, change_bytes: int) -> None:
        """What connections keep of unfinished requests has changed; too much closes the one that holds the most."""
        self._held_bytes += change_bytes
        if change_bytes > 0 and self._held_bytes > self.settings.max_held_bytes:
            max(self.connections, key=lambda each: each.held_bytes).abandon(Abuse.MEMORY)

    def expiry_us(self, now_us: int) -> int:
        """When a connection that opens now is told to leave; 0: never."""
        age_us = self.settings.max_age_us
        return now_us + int(age_us * random.uniform(1 - _AGE_SPREAD, 1 + _AGE_SPREAD)) if age_us else 0  # noqa: S311

    def stats(self) -> NativeStats:
        """What was counted so far."""
        live = sum(connection.streams_seen for connection in self.connections)
        return NativeStats(
            accepted=self._accepted,
            refused=self._refused,
            open=len(self.connections),
            streams=self._closed_streams + live,
            held_bytes=self._held_bytes,
            abuse={kind.value: count for kind, count in self._abuse.items()},
        )

    # ── late answers ─────────────────────────────────────────────────────────────────────────────────────────────

    def flush_soon(self, connection: NativeConnection) -> None:
        """Write what `connection` has to say once the callbacks that are ready now have run."""
        if not self._late:
            asyncio.get_running_loop().call_soon(self._flush)
        self._late[connection] = None

    def _flush(self) -> None:
        late, self._late = self._late, {}
        for connection in late:
            connection.flush()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _set_timer(self) -> None:
        delay_s = self.settings.sweep_us / _US_PER_S
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        """Look at every connection, a slice at a time; without connections the timer rests."""
        self._timer = None
        if self.connections:
            self._sweep_slice(list(self.connections))

    def _sweep_slice(self, left: list[NativeConnection]) -> None:
        now_us = self.clock().boot_us
        for connection in left[-_SLICE:]:
            connection.look_after(now_us)
        del left[-_SLICE:]
        if left:
            asyncio.get_running_loop().call_soon(self._sweep_slice, left)
        elif self._timer is None:
            self._set_timer()

    async def drain(self, grace_s: float) -> None:
        """Tell every connection to leave, and close what is left after `grace_s` seconds."""
        self.draining = True
        self.health.close()
        now_us = self.clock().boot_us
        for connection in list(self.connections):
            connection.leave(now_us)
        if self.connections:
            await self._wait_until_empty(grace_s)
        for connection in list(self.connections):
            connection.abort()
        if self.connections:
            await self._wait_until_empty(1.0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _wait_until_empty(self, longest_s: float) -> None:
        try:
            await asyncio.wait_for(self._empty.wait(), longest_s)
        except TimeoutError:
            return
