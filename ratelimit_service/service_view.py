"""The running service as its admin pages, its logs and its probes see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
import structlog

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.limiter.engine import OWN_STORE, Limiter
from ratelimit_service.limiter.explain import Explanation
from ratelimit_service.limiter.resetting import ResetAnswer
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.health import StoresHealth
from ratelimit_service.quota.store import Store, Usage
from ratelimit_service.sources.contract import Applied, Refused
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.transport.admin_service import Readiness
from ratelimit_service.transport.contract import Answer, Decider
from ratelimit_service.wire.grpc.status import GrpcError
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.messages import Request, Verdict

Value = TypeVar("Value")


class ServiceView:
    """What is in force and whether traffic should come. Implements `AdminView` and `LoadObserver`.

    Attributes:
        draining: Set on the first signal; never ready again.
    """

    def __init__(
        self,
        *,
        version: str,
        limiter: Limiter,
        decider: Decider,
        stores: Mapping[str, Store],
        health: Callable[[], StoresHealth],
        metrics: Metrics,
        clock: Callable[[], Instant],
        deadline_us: int,
        waits_for_policies: bool = True,
    ) -> None:
        """Set up; there is no configuration yet.

        Args:
            version: Of the program.
            limiter: What explains requests and takes snapshots.
            decider: What `/json` asks, the same that the transport asks.
            stores: By profile, where hits are counted.
            health: How those stores are.
            metrics: What `/metrics` shows.
            clock: One reading of the clocks.
            deadline_us: How long `/json` waits for a verdict.
            waits_for_policies: Without policies the service waits for good ones; else it ends and tells why itself.
        """
        self._version = version
        self._limiter = limiter
        self._decider = decider
        self._stores = stores
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._deadline_us = deadline_us
        self._waits_for_policies = waits_for_policies
        self._snapshot: Snapshot | None = None
        self._problems: tuple[str, ...] = ()
        self._log = structlog.get_logger("tidegate")
        self.draining = False

    @property
    def version(self) -> str:
        """Version of the program."""
        return self._version

    def readiness(self) -> Readiness:
        """Ready from the first good configuration until the drain; a refused reload changes nothing (DECISIONS 34)."""
        if self.draining:
            return Readiness(ready=False, reason="draining", problems=self._problems)
        if self._snapshot is None:
            return Readiness(ready=False, reason="no configuration", problems=self._problems)
        return Readiness(ready=True, problems=self._problems)

    def render_metrics(self) -> Iterator[bytes]:
        """`Metrics.render`, with readiness as it is now."""
        self._metrics.ready = self.readiness().ready
        return self._metrics.render()

    def cache_health(self) -> StoresHealth:
        """How the stores are that hits are counted in."""
        return self._health()

    def snapshot(self) -> Snapshot | None:
        """What is in force, None before the first configuration."""
        return self._snapshot

    async def decide(self, request: Request) -> Verdict | GrpcError:
        """Decide and count, exactly as a call over gRPC: through the bytes of the wire."""
        arrived: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        now, body = self._clock(), encode_request(request)
        answer = self._decider.decide(body, now, now.boot_us + self._deadline_us, _settle(arrived))
        if answer is None:
            answer = await arrived
        return answer if isinstance(answer, GrpcError) else decode_response(answer)

    async def explain(self, request: Request) -> bytes:
        """`Limiter.evaluate` as JSON."""
        explained: asyncio.Future[Explanation] = asyncio.get_running_loop().create_future()
        self._limiter.evaluate(request, self._clock(), _settle(explained))
        return msgspec.json.encode(await explained)

    async def reset(self, request: Request) -> ResetAnswer:
        """`Limiter.reset`."""
        answered: asyncio.Future[ResetAnswer] = asyncio.get_running_loop().create_future()
        self._limiter.reset(request, _settle(answered))
        answer = await answered
        for counter in answer.counters:
            if counter.key:
                # Whoever finds a budget begun anew must be able to find out when, and that it was by hand.
                self._log.warning("counter reset", domain=answer.domain, rule=counter.rule, counted=counter.counted)
        return answer

    async def usage(self, domain: str, page: int) -> Sequence[Usage] | None:
        """`Store.usage` of a domain."""
        listed: asyncio.Future[Sequence[Usage] | None] = asyncio.get_running_loop().create_future()
        self._store_of(domain).usage(domain, page, _settle(listed))
        return await listed

    def bound(self, domain: str, rule: str) -> int:
        """`Store.bound` of a rule; below 0: there is none."""
        bound = self._store_of(domain).bound(rule)
        return -1 if bound >= MAX_HITS else bound

    def _store_of(self, domain: str) -> Store:
        known = None if self._snapshot is None else self._snapshot.domains.get(domain.encode(errors="surrogatepass"))
        own = self._stores[OWN_STORE]
        return own if known is None else self._stores.get(known.profile, own)

    def apply(self, snapshot: Snapshot) -> Applied | Refused:
        """Put a snapshot in force; what the sources call."""
        self._limiter.apply(snapshot)
        self._snapshot = snapshot
        return Applied(snapshot.version)

    def stream_changed(self, connected: bool, address: str, reason: str) -> None:
        """Count and log that the stream to the operator is there, or not any more."""
        self._metrics.config.stream_changed(connected)
        if connected:
            self._log.info("operator connected", address=address)
        else:
            stays = "nothing is in force" if self._snapshot is None else "what was in force stays"
            self._log.warning(f"no operator, {stays}", address=address, reason=reason)

    def source_told(self, message: str) -> None:
        """Log what a source cannot do and goes on without."""
        self._log.warning("source of policies", problem=message)

    def load_succeeded(self, applied: Applied, duration_us: int) -> None:
        """Count and log a set that is in force."""
        self._problems = tuple(str(problem) for problem in applied.warnings)
        rules, domains = (0, 0) if self._snapshot is None else (self._snapshot.rule_count, len(self._snapshot.domains))
        self._metrics.config.applied(applied.version, domains=domains, rules=rules, wall_us=self._clock().wall_us)
        self._metrics.config.shadow = self._limiter.is_shadow
        self._log_problems(applied.warnings)
        self._log.info(
            "policies in force", version=applied.version, domains=domains, rules=rules, duration_ms=duration_us // 1000
        )

    def load_failed(self, problems: Sequence[Problem], duration_us: int) -> None:
        """Count and log a set that was refused."""
        self._problems = tuple(str(problem) for problem in problems)
        self._metrics.config.refused()
        if self._snapshot is None and not self._waits_for_policies:
            # The process ends with exactly these problems on its standard error.
            return
        self._log_problems(problems)
        stays = "nothing is in force" if self._snapshot is None else "what was in force stays"
        self._log.error(f"policies refused, {stays}", problems=len(problems), duration_ms=duration_us // 1000)

    def _log_problems(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            log = self._log.error if problem.severity is Severity.ERROR else self._log.warning
            log("problem in policies", problem=str(problem))


def _settle(future: asyncio.Future[Value]) -> Callable[[Value], None]:
    """A callback that resolves the future, unless the client of the admin page has left meanwhile."""

    def settle(value: Value) -> None:
        if not future.done():
            future.set_result(value)

    return settle
