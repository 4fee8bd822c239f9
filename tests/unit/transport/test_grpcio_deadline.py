"""A call that was read after its own deadline, which no client can produce on purpose."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from ratelimit_service.transport.grpcio import _Methods
from ratelimit_service.transport.health import HealthBoard
from support.deciders import ValueDecider, read_clock


class _Aborted(Exception):
    """What grpcio raises to end a call."""


class _ExpiredContext:
    """grpcio's side of a call of which nothing is left."""

    def time_remaining(self) -> float:
        return 0.0

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise _Aborted(code, details)


def test_a_call_that_expired_on_arrival_is_not_decided() -> None:
    """DEADLINE_EXCEEDED, and nothing is counted."""
    decider = ValueDecider()
    methods = _Methods(decider, read_clock, 10_000, HealthBoard())

    with pytest.raises(_Aborted) as caught:
        asyncio.run(methods.should_rate_limit(b"", _ExpiredContext()))
    assert caught.value.args[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert decider.calls == []
