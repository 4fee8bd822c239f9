"""Builds the service out of its parts and walks it from start to end; the only module that names concrete classes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Final

import structlog

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.clock import Clock
from ratelimit_service.errors import TidegateError
from ratelimit_service.limiter.engine import OWN_STORE, Limiter
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.backend import Backend
from ratelimit_service.policy.compile import CompileOptions
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.profile_model import (
    Durability,
    LeaseMode,
    Leases,
    NewMaster,
    StoreSpec,
    StoreType,
)
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.quota.redis.address import InvalidStoreAddress
from ratelimit_service.quota.redis.address_model import RedisAddress
from ratelimit_service.quota.store import Store
from ratelimit_service.quota.upstream import UpstreamMemoryStore
from ratelimit_service.service_view import ServiceView
from ratelimit_service.settings import Compat, ServeSettings
from ratelimit_service.sources.contract import Applied, Refused
from ratelimit_service.sources.files import FileSource
from ratelimit_service.store_address import from_profile
from ratelimit_service.telemetry import logs
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.transport.addresses import CannotListen
from ratelimit_service.transport.admin import AdminServer
from ratelimit_service.transport.admin import CannotListen as CannotListenAdmin
from ratelimit_service.transport.contract import Counting, Decider, Transport
from ratelimit_service.transport.timing import TimedDecider
from ratelimit_service.transport.tls import InvalidTls, TlsSettings

if TYPE_CHECKING:
    from ratelimit_service.quota.redis.nodes import Node

_US_PER_S: Final = 1_000_000
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_RESERVE_S: Final = 0.5
"""Of the drain's grace, what is kept for closing all that is not a call."""
MakeTransport = Callable[[Decider, Callable[[], Instant], ServeSettings, Histogram], Transport]
"""From who decides, the clocks, the settings, and what takes the durations of calls."""


class StartRefused(TidegateError):
    """The service does not start.

    Attributes:
        subject: What is wrong, in a word: `policies`, `addresses`, `TLS files`.
        problems: Everything that is wrong with it.
    """

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        super().__init__(f"{subject}: " + "; ".join(problems))
        self.subject = subject
        self.problems = tuple(problems)


def _grpcio(decider: Decider, clock: Callable[[], Instant], settings: ServeSettings, durations: Histogram) -> Transport:
    # Where it serves and nowhere else: it costs 15 MB.
    from ratelimit_service.transport.grpcio import GrpcioSettings, GrpcioTransport  # noqa: PLC0415

    return GrpcioTransport(
        TimedDecider(decider, durations),
        clock,
        [str(address) for address in settings.grpc],
        settings=GrpcioSettings(longest_answer_us=settings.deadline_us, max_message_bytes=settings.max_message_bytes),
        tls=_tls(settings),
    )


def _native(decider: Decider, clock: Callable[[], Instant], settings: ServeSettings, durations: Histogram) -> Transport:
    from ratelimit_service.transport.native import NativeTransport  # noqa: PLC0415 — as grpcio
    from ratelimit_service.transport.native_settings import NativeSettings  # noqa: PLC0415

    return NativeTransport(
        decider,
        clock,
        [str(address) for address in settings.grpc],
        settings=NativeSettings(longest_answer_us=settings.deadline_us, max_message_bytes=settings.max_message_bytes),
        tls=_tls(settings),
        durations=durations,
    )


TRANSPORTS: Final[Mapping[str, MakeTransport]] = {"grpcio": _grpcio, "native": _native}
"""What `--transport` may name."""


def _tls(settings: ServeSettings) -> TlsSettings | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TlsSettings(settings.tls_cert, settings.tls_key, settings.client_ca, settings.client_sans)


class Service:
    """One running service. Made, started and ended on one event loop.

    Attributes:
        view: What its admin pages show.

    Raises:
        StartRefused: The TLS files are not good; raised on construction.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._told = asyncio.Event()
        clock = Clock()
        logs.configure(settings.log_format, settings.log_level, sys.stderr, lambda: clock.read().boot_us)
        self._log = structlog.get_logger("tidegate")
        version = _version()
        metrics = Metrics(version, settings.metrics_max_series)
        self._stores = Stores(settings, clock, metrics)
        limiter = Limiter(self._stores.by_profile, _limiter_settings(settings), metrics.counters)
        decider = TimedDecider(limiter, metrics.request_duration)
        self.view = ServiceView(
            version=version,
            limiter=limiter,
            decider=decider,
            stores=self._stores.by_profile,
            metrics=metrics,
            clock=clock.read,
            deadline_us=settings.deadline_us,
            waits_for_policies=settings.start_without_policies,
        )
        metrics.bound = self.view.bound
        self._source = FileSource(
            [str(path) for path in settings.policies],
            self._apply,
            CompileOptions(merge_domain_config=settings.merge_domain_config),
            self.view,
        )
        self._admin = AdminServer([settings.admin], self.view, exposed=settings.admin_expose)
        try:
            self._transport = TRANSPORTS[settings.transport](limiter, clock.read, settings, metrics.request_duration)
        except InvalidTls as error:
            raise StartRefused("TLS files", [str(error)]) from error
        if isinstance(self._transport, Counting):
            metrics.connections = self._transport.stats

    async def start(self) -> None:
        """Load the policies, bind every address and serve; from now on signals are `run_until_signal`'s.

        Raises:
            StartRefused: With every problem; nothing is left running.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._told.set)
        await self._stores.start()
        try:
            await self._load()
            await self._listen()
        except BaseException:
            await self._close(grace_s=0)
            raise
        self._transport.set_serving(self.view.readiness().ready)

    async def _load(self) -> None:
        outcome = await self._source.start()
        if isinstance(outcome, Refused) and not self._settings.start_without_policies:
            raise StartRefused("policies", [str(problem) for problem in outcome.problems])

    async def _listen(self) -> None:
        problems = []
        try:
            await self._admin.start()
        except CannotListenAdmin as error:
            problems.append(str(error))
        try:
            await self._transport.start()
        except CannotListen as error:
            problems.append(str(error))
        if problems:
            raise StartRefused("addresses", problems)

    def _apply(self, snapshot: Snapshot) -> Applied | Refused:
        if problems := self._stores.follow(snapshot):
            return Refused(tuple(problems))
        outcome = self.view.apply(snapshot)
        self._transport.set_serving(self.view.readiness().ready)
        return outcome

    @property
    def version(self) -> str:
        """Version of the program."""
        return self.view.version

    @property
    def snapshot(self) -> Snapshot | None:
        """What is in force, None while there is nothing."""
        return self.view.snapshot()

    @property
    def grpc_addresses(self) -> list[str]:
        """Where Envoy may ask, with real ports."""
        return self._transport.addresses

    @property
    def admin_addresses(self) -> list[str]:
        """Where the admin pages are, with real ports."""
        return self._admin.addresses

    async def run_until_signal(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once, by that signal."""
        await self._told.wait()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        await self.drain()

    async def drain(self) -> None:
        """End without losing a call (DECISIONS 31).

        Health says NOT_SERVING at once, and calls are answered for `--drain-delay` more, so that Envoy goes elsewhere
        first. Then no call is taken, and those under way finish, by `--drain-grace` from the start at the latest.
        """
        settings = self._settings
        self.view.draining = True
        self._transport.set_serving(False)
        delay_s, grace_s = settings.drain_delay_us / _US_PER_S, settings.drain_grace_us / _US_PER_S
        self._log.info("draining", delay_s=delay_s, grace_s=grace_s)
        await asyncio.sleep(delay_s)
        await self._close(grace_s - delay_s)
        self._log.info("drained")

    async def _close(self, grace_s: float) -> None:
        calls_s = max(0.0, grace_s - _RESERVE_S)
        await asyncio.gather(self._transport.drain(calls_s), self._source.close())
        await self._admin.close(min(grace_s, _RESERVE_S))
        await self._stores.close()


def _version() -> str:
    try:
        return metadata.version("tidegate")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "0.0.0+source"


def _limiter_settings(settings: ServeSettings) -> LimiterSettings:
    return LimiterSettings(
        compat=settings.compat is Compat.ENVOYPROXY,
        store_errors=settings.compat is Compat.ENVOYPROXY and settings.store is not None,
        shadow_mode=settings.shadow_mode,
        quota_mode=settings.quota_mode,
        response_headers=settings.response_headers,
        response_dynamic_metadata=settings.response_dynamic_metadata,
        near_limit_ratio=settings.near_limit_ratio,
    )


class _Unwatched:
    """A `Watcher` for a store that keeps nothing that a new master could contradict."""

    def on_new_boot(self, node: Node) -> None:
        """See `Watcher`."""

    def on_turn(self, node: Node) -> None:
        """See `Watcher`."""


class Stores:
    """The service's own store, and one for each profile in force that names a Redis (`Limiter`'s mapping).

    Attributes:
        own: Counts whatever no other store does.
        by_profile: All of them; changed in place.
    """

    def __init__(self, settings: ServeSettings, clock: Clock, metrics: Metrics) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._backends: dict[str, Backend] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self.own = self._make_own()
        self.by_profile: dict[str, Store] = {OWN_STORE: self.own}

    def _make_own(self) -> Store:
        settings = self._settings
        if settings.store is not None and settings.compat is Compat.ENVOYPROXY:
            return self._make_upstream(settings.store)
        if settings.store is not None:
            return self._make_shared(OWN_STORE, settings.store, Leases(), StoreSpec())
        kind = UpstreamMemoryStore if settings.compat is Compat.ENVOYPROXY else MemoryStore
        memory = kind(clock=self._clock, max_keys=settings.store_max_keys, max_bytes=settings.store_max_bytes)
        self._metrics.add_store(OWN_STORE, memory.stats)
        return memory

    def _make_shared(self, profile: str, address: RedisAddress, leases: Leases, spec: StoreSpec) -> Store:
        # As the transports: where it counts and nowhere else.
        from ratelimit_service.quota.leases.book import LeaseSettings  # noqa: PLC0415
        from ratelimit_service.quota.leases.masters import NewMasterRule  # noqa: PLC0415
        from ratelimit_service.quota.leases.replica import ReplicaSettings  # noqa: PLC0415
        from ratelimit_service.quota.redis.store import RedisStore  # noqa: PLC0415

        slots = leases.slots or (self._settings.slots if self._settings.slots > 1 else None)
        settings = ReplicaSettings(
            leases=LeaseSettings(
                exact=leases.mode is LeaseMode.EXACT,
                horizon_us=leases.horizon_us,
                max_keys=self._settings.store_max_keys,
            ),
            slots=slots,
            standing_percent=leases.standing_share,
            new_master=NewMasterRule((spec.new_master or NewMaster.LEARN).value),
        )
        wait_replicas = 1 if spec.durability is Durability.WAIT else 0
        shared = RedisStore(address, settings, self._clock, wait_replicas=wait_replicas)
        self._metrics.add_shared_store(profile, shared.stats)
        return shared

    def _make_upstream(self, address: RedisAddress) -> Store:
        from ratelimit_service.quota.redis.topologies import make_topology  # noqa: PLC0415 — as above
        from ratelimit_service.quota.redis.upstream import UpstreamRedisSettings, UpstreamRedisStore  # noqa: PLC0415
        from ratelimit_service.quota.redis.upstream_counting import Servers  # noqa: PLC0415

        settings, watcher = self._settings, _Unwatched()
        per_second = settings.compat_per_second_store
        servers = Servers(
            main=make_topology(address, watcher, self._clock),
            per_second=None if per_second is None else make_topology(per_second, watcher, self._clock),
            timeout_us=address.command_us,
        )
        given = UpstreamRedisSettings(
            prefix=address.key_prefix,
            expiry_jitter_s=settings.compat_expiry_jitter_s,
            local_cache_bytes=settings.compat_local_cache_bytes,
            stop_when_over=settings.compat_stop_when_over,
        )
        return UpstreamRedisStore(clock=self._clock, servers=servers, settings=given)

    async def start(self) -> None:
        """Begin background work of the service's own store; it never fails for want of a server."""
        await self.own.start()

    def follow(self, snapshot: Snapshot) -> list[Problem]:
        """Open the stores that the profiles of a snapshot name, and close those that none names any more.

        A store whose address changed is opened beside the old one, which gives back what it holds; counts begin anew.
        With a problem nothing is changed.
        """
        wanted = snapshot.backends
        addresses: dict[str, RedisAddress] = {}
        problems: list[Problem] = []
        for profile, backend in wanted.items():
            if self._backends.get(profile) == backend or backend.store.type is StoreType.MEMORY:
                continue
            try:
                addresses[profile] = from_profile(backend.store, self._settings.secrets_dir / backend.namespace)
            except InvalidStoreAddress as wrong:
                problems += [Problem(f"CacheProfile {profile}", "spec.store", text) for text in wrong.problems]
        if problems:
            return problems
        for profile in [name for name, backend in self._backends.items() if wanted.get(name) != backend]:
            del self._backends[profile]
            self._metrics.remove_store(profile)
            self._run(self.by_profile.pop(profile).close())
        for profile, address in addresses.items():
            backend = self._backends[profile] = wanted[profile]
            store = self._make_shared(profile, address, backend.leases, backend.store)
            self.by_profile[profile] = store
            self._run(store.start())
        return []

    def _run(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def close(self) -> None:
        """Give back what every store holds."""
        await asyncio.gather(*self._errands, return_exceptions=True)
        await asyncio.gather(*(store.close() for store in self.by_profile.values()))
