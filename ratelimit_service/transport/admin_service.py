"""What the admin pages need of the service; the app implements it, so that pages do not import the app."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from ratelimit_service.limiter.resetting import ResetAnswer
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.health import StoresHealth
from ratelimit_service.quota.store import Usage
from ratelimit_service.wire.grpc.status import GrpcError
from ratelimit_service.wire.rls.messages import Request, Verdict


class Readiness(msgspec.Struct, frozen=True):
    """Whether traffic should come, and what is wrong all the same.

    Attributes:
        ready: A configuration is in force and the service is not draining.
        reason: Not ready: why, in a few words (`no configuration`, `draining`).
        problems: Of the newest set of policies, if it was refused, and of a degraded store; one line each.
    """

    ready: bool
    reason: str = ""
    problems: tuple[str, ...] = ()


class AdminView(Protocol):
    """The service as the admin pages see it. Called on the event loop; nothing here may block."""

    @property
    def version(self) -> str:
        """Version of the program."""

    def readiness(self) -> Readiness:
        """For `/readyz` and `/healthcheck`."""

    def render_metrics(self) -> Iterator[bytes]:
        """`Metrics.render`."""

    def cache_health(self) -> StoresHealth:
        """How the stores are that hits are counted in, for `/health/cache`."""

    def snapshot(self) -> Snapshot | None:
        """What is in force, None before the first configuration."""

    async def decide(self, request: Request) -> Verdict | GrpcError:
        """Decide and count, exactly as a call over gRPC."""

    async def explain(self, request: Request) -> bytes:
        """`Limiter.evaluate` as JSON; counts nothing. Before the first configuration it is not called."""

    async def usage(self, domain: str, page: int) -> Sequence[Usage] | None:
        """`Store.usage` of a domain that is in force; None: its store did not answer."""

    async def reset(self, request: Request) -> ResetAnswer:
        """Begin the counters of a request anew. Before the first configuration it is not called."""
