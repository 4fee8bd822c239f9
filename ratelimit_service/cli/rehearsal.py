"""A limiter over memory that stands still in time: what a fresh service would decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.limiter.engine import OWN_STORE, Limiter, LimiterSettings
from ratelimit_service.policy.match import Entries
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.wire.grpc.status import GrpcError
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request, Verdict

_NOON: Final = Instant(1_700_049_600_000_000, 1_000_000)
"""2023-11-15 12:00 UTC: in the middle of every calendar window."""


class _StoppedClock:
    """A clock whose time never passes."""

    def read(self) -> Instant:
        """Noon."""
        return _NOON


class Rehearsal:
    """Decides requests one after the other, each counted, all in the same instant.

    Args:
        snapshot: What is in force.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        store = MemoryStore(clock=_StoppedClock(), max_keys=100_000, call_soon=lambda task: task())
        self._limiter = Limiter({OWN_STORE: store}, LimiterSettings(), CounterTable(0))
        self._limiter.apply(snapshot)

    def decide(self, domain: str, descriptors: Sequence[Entries]) -> Verdict | str:
        """The verdict, or the text of the error that Envoy would get. Envoy asks nothing without a descriptor."""
        if not descriptors:
            return Verdict(over=False, statuses=())
        asked = Request(domain.encode(), tuple(Descriptor(tuple(entries)) for entries in descriptors))
        late: list[bytes | GrpcError] = []
        answer = self._limiter.decide(encode_request(asked), _NOON, _NOON.boot_us + 10_000, late.append)
        if answer is None:
            (answer,) = late
        return answer.message if isinstance(answer, GrpcError) else decode_response(answer)
