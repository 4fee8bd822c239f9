"""The control loop: what was seen becomes a plan, the plan goes to the replicas, what they say goes into status.

Every replica of the operator does all of it; only the holder of the Lease answers streams and writes (DECISIONS 43),
so a takeover finds everything compiled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from ratelimit_operator.api.objects import MANAGER
from ratelimit_operator.cluster.api_server import ApiFailure, ApiServer
from ratelimit_operator.cluster.bootstrap import Bootstrap
from ratelimit_operator.cluster.copy_keeper import CopyKeeper
from ratelimit_operator.cluster.events import EventPoster
from ratelimit_operator.cluster.filter_keeper import FilterKeeper
from ratelimit_operator.cluster.history import History
from ratelimit_operator.cluster.lease import LeaseKeeper
from ratelimit_operator.cluster.status_writer import StatusWriter
from ratelimit_operator.flags import Options
from ratelimit_operator.handlers.observing import Change, Observation
from ratelimit_operator.handlers.replicas import Distributor
from ratelimit_operator.handlers.rollback import Rollback
from ratelimit_operator.plan.attachment import Attachment, AttachSettings, attach
from ratelimit_operator.plan.copies import ProfileCopy, profile_copies
from ratelimit_operator.plan.distribution import Distribution, ResourceId, ResourceKind, settled
from ratelimit_operator.plan.election import Election
from ratelimit_operator.plan.index import key_of
from ratelimit_operator.plan.judging import JUDGED, Evidence, Judge, Wanted
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.planning import Plan, plan
from ratelimit_operator.plan.precedence import Contests
from ratelimit_operator.plan.statuses import Replicas
from ratelimit_operator.plan.world import ObservedPolicy, ObservedProfile
from ratelimit_service.policy.model import RateLimitPolicy

_RETRY_LIST_S: Final = 2.0
"""Until a list that failed is tried again."""

_GATHER_S: Final = 0.5
"""How long a wish for a list waits for others: a watch that begins anew wishes for one per object."""


class Control:
    """One operator.

    Args:
        options: What it was told.
        api: The API server.
        replicas: The xDS server; its changes have to be told by `replicas_changed`.

    Attributes:
        planned: The last plan, None: nothing was seen completely yet.
        compile_seconds: How long each compilation took, newest last, at most a thousand.
        held: Why nothing is pushed, empty: it is.
        compiled: Set with the first plan.
    """

    def __init__(self, options: Options, api: ApiServer, replicas: Distributor) -> None:
        self._options = options
        self._api = api
        self._replicas = replicas
        self._log = structlog.get_logger("tidegate.control")
        self.observation = Observation(api, options.scope, options.service, gateway_api=options.gateway_api)
        self._dirty = asyncio.Event()
        self._list_now = asyncio.Event()
        self.compiled = asyncio.Event()
        self._contests = Contests()
        self._live = Live()
        self._judge = Judge(options.controller_name)
        # Keys of objects that have to be judged anew, None: all of them.
        self._unjudged: set[str] | None = None
        self.attachment = Attachment({}, {})
        self.filters = FilterKeeper(
            api,
            options.controller_name,
            self._wanted_filters,
            self._dirty.set,
            interval_s=options.list_interval_s,
            places=options.attaching_places,
        )
        self.copies = CopyKeeper(
            api,
            options.controller_name,
            options.profile_config_maps,
            self._wanted_copies,
            self.replicas_changed,
            interval_s=options.list_interval_s,
        )
        self._shrunk_at = ""
        self._started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.planned: Plan | None = None
        self.compile_seconds: list[float] = []
        self.compilations = 0
        self.held = "nothing was listed yet"
        election = Election(options.identity, lease_s=options.lease_duration_s, renew_s=options.lease_renew_s)
        self.lease = LeaseKeeper(
            api, options.scope.release_namespace, election, self._lease_changed, retry_s=options.lease_retry_s
        )
        self.statuses = StatusWriter(api, options.controller_name, self._wanted, self._wrote, self._is_contested)
        self.events = EventPoster(api)
        self.history = History(
            api,
            options.scope.release_namespace,
            options.controller_name,
            options.history,
            options.bootstrap_delay_s,
            current=self._worth_going_back_to,
            in_use=lambda: self.rollback.version,
        )
        self.rollback = Rollback(self.history)
        self.bootstrap = Bootstrap(api, options.scope.release_namespace, options.bootstrap_delay_s, self._worth_keeping)

    # What comes from other threads' and parts' calls on this loop.

    def seen(self, plural: str, event: str | None, body: Mapping[str, Any]) -> None:
        """An event of a watch."""
        change = self.observation.see(plural, event, body)
        if change is not Change.NOTHING and plural in JUDGED:
            self._unjudge(plural, body)
        if change is Change.CONTENT:
            self._dirty.set()
        if event is None:
            # A watch has listed anew: what it lacks now was deleted while nobody watched.
            self._list_now.set()

    def restarted(self) -> None:
        """A watch begins anew: what happened meanwhile is known by a list only."""
        self._list_now.set()

    def replicas_changed(self) -> None:
        """What the replicas say has changed."""
        self._unjudged = None
        self.statuses.wake()
        self.bootstrap.wake()
        self.history.wake()

    def _lease_changed(self, held: bool) -> None:
        self._replicas.serve(held and self.planned is not None)
        self._unjudged = None
        self.statuses.wake()
        self.filters.wake()
        self.copies.wake()
        self.bootstrap.wake()

    # What runs.

    async def run(self) -> None:
        """List, compile, elect and write until cancelled; what fails unforeseen ends all of it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_listing())
            tasks.create_task(self._keep_compiling())
            tasks.create_task(self.lease.run())
            tasks.create_task(self.statuses.run())
            tasks.create_task(self.filters.run())
            tasks.create_task(self.copies.run())
            tasks.create_task(self.events.run())
            tasks.create_task(self.bootstrap.run())
            tasks.create_task(self.history.run())

    async def _keep_listing(self) -> None:
        await self._remember()
        while True:
            self._list_now.clear()
            inventory = self.observation.inventory
            changed = await inventory.refresh()
            if inventory.failure:
                self._log.warning("list failed", reason=inventory.failure)
            if changed or inventory.failure or self.held or self._shrunk_at or self.rollback.problem:
                self._dirty.set()
            wait_s = _RETRY_LIST_S if inventory.failure else self._options.list_interval_s
            try:
                await asyncio.wait_for(self._list_now.wait(), wait_s)
            except TimeoutError:
                continue
            await asyncio.sleep(_GATHER_S)

    async def _remember(self) -> None:
        """Begin with the forms that were live before this process: what is not accepted now may have been then."""
        while True:
            try:
                self._live = await self.bootstrap.load()
            except ApiFailure as failure:
                self.held = str(failure)
                self._log.warning("bootstrap set not read", reason=str(failure))
                await asyncio.sleep(_RETRY_LIST_S)
            else:
                break
        if self.bootstrap.saved is not None:
            self._replicas.seed(self.bootstrap.saved)

    async def _keep_compiling(self) -> None:
        while True:
            await self._dirty.wait()
            # What comes meanwhile is compiled with it.
            await asyncio.sleep(self._options.debounce_s)
            self._dirty.clear()
            await self.rollback.look(self.observation.rollback())
            self._compile()

    def _compile(self) -> None:
        inventory = self.observation.inventory
        if not inventory.is_complete or inventory.failure:
            # Never a partial snapshot: what is live stays until everything has been listed (DECISIONS 47).
            self.held = inventory.failure or "not every kind was listed yet"
            return
        began_s = time.perf_counter()
        planned = plan(self.observation.world(), self._live, self._contests)
        self.compile_seconds = [*self.compile_seconds[-999:], time.perf_counter() - began_s]
        self.compilations += 1
        first = self.planned is None
        if not self._publish(planned):
            return
        self.held = ""
        self.planned, self._live = planned, planned.live
        self._attach()
        self.copies.wake()
        if first:
            self.compiled.set()
            self._replicas.serve(self.lease.held)
        self._unjudged = None
        self.statuses.wake()
        self.bootstrap.wake()

    def _attach(self) -> None:
        """Decide what makes Envoy ask for the live forms."""
        world, options = self.observation.world(), self._options
        policies = [form.sent for form in self._live.policies.values() if isinstance(form.sent, RateLimitPolicy)]
        self.attachment = attach(
            policies,
            {key: each.uid for key, each in world.policies.items()},
            self.observation.mesh(has_envoy_filters=self.filters.is_installed),
            AttachSettings(
                options.istio and self.observation.attaches(), options.envoy_service, options.controller_name
            ),
            frozenset(name for name in world.namespaces if world.is_platform(name)),
        )
        self.filters.wake()

    def _wanted_filters(self) -> Mapping[str, Mapping[str, object]] | None:
        """EnvoyFilters that have to be there, None: another operator writes, or nothing is known yet."""
        return self.attachment.filters if self.planned is not None and self.lease.held else None

    def _wanted_copies(self) -> Mapping[str, ProfileCopy] | None:
        """ConfigMaps of profiles that have to be there, None: another operator writes, or nothing is known yet."""
        if self.planned is None or not self.lease.held:
            return None
        options = self._options
        return profile_copies(
            self.observation.profiles.objects(),
            self.planned.profiles,
            options.profile_config_maps,
            options.controller_name,
        )

    def _publish(self, planned: Plan) -> bool:
        """Give the plan to the replicas, unless it would lose most of the policies: then a second list must agree."""
        version = planned.distribution.version
        self._replicas.expect(self.observation.ready_replicas())
        given = self.rollback.give(planned.distribution)
        # Nobody goes back to a set by a list that lost something.
        confirmed = self._shrunk_at == version or bool(self.rollback.version)
        if self._replicas.publish(given, confirmed=confirmed):
            self._shrunk_at = ""
            return True
        self.held = f"distribution {version} would lose most policies: waits for a second complete list"
        self._log.warning("push held", reason=self.held)
        self._shrunk_at = version
        self._list_now.set()
        return False

    # Status.

    def overlap(self) -> str:
        """Why another release seems to write this one's objects, empty: none does (DECISIONS 51)."""
        for policy in self.observation.policies.objects().values():
            for manager, time_text in self._rivals(policy):
                return (
                    f"RateLimitPolicy {policy.key} is written by another release, too: "
                    f"{manager.partition('/')[2]} at {time_text}; give each release --namespaces of its own"
                )
        return self.statuses.overlap

    def _rivals(self, observed: ObservedPolicy | ObservedProfile) -> list[tuple[str, str]]:
        """Other releases that have written an object since this one began; what is older may be of one that is gone."""
        ours = f"{MANAGER}/{self._options.controller_name}"
        return [each for each in observed.writers if each[0] != ours and each[1] > self._started]

    def _is_contested(self, key: str) -> bool:
        kind, _, name = key.partition(" ")
        kept = self.observation.policies if kind == "RateLimitPolicy" else self.observation.profiles
        observed = kept.objects([name]).get(name)
        return observed is not None and bool(self._rivals(observed))

    def replicas(self, only: Collection[str] | None = None) -> Replicas:
        """What the replicas say now; `only`: of these objects (`Wanted.key`), None: of all."""
        total = len(self.observation.ready_replicas() | set(self._replicas.nodes()))
        withheld = self.rollback.withheld
        if only is None:
            acked = dict(self._replicas.acked())
        else:
            of = (ResourceId(ResourceKind.POLICY.value, key.partition(" ")[2]) for key in only)
            acked = {each: self._replicas.acked_of(each) for each in of}
        if withheld:
            # Who runs another form of a resource does not run the planned one.
            acked = {identity: count for identity, count in acked.items() if identity not in withheld}
        return Replicas(acked, total, self._replicas.quarantined(), withheld)

    def _wanted(self) -> Mapping[str, Wanted]:
        if self.planned is None or not self.lease.held:
            return {}
        only, self._unjudged = self._unjudged, set()
        names = None if only is None else [key.partition(" ")[2] for key in only]
        evidence = Evidence(
            self.planned,
            self.observation.policies.objects(names),
            self.observation.profiles.objects(names),
            self.attachment.policies,
            self.copies.states,
            self.replicas(only),
        )
        return self._judge.judge(evidence, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), only)

    def _unjudge(self, plural: str, body: Mapping[str, Any]) -> None:
        """Something about an object has changed: its status may have to."""
        if self._unjudged is not None:
            self._unjudged.add(f"{JUDGED[plural]} {key_of(body['metadata'])}")
        self.statuses.wake()

    def _worth_keeping(self) -> Distribution | None:
        given = self.rollback.given
        if self.planned is None or given is None or not self.lease.held:
            return None
        return settled(given, self._replicas.quarantined(), self.bootstrap.saved)

    def _worth_going_back_to(self) -> Distribution | None:
        """The set that is given out, if it is what is applied and every replica runs all of it."""
        given, told = self.rollback.given, self.replicas()
        if self.planned is None or given is None or not self.lease.held or self.rollback.version or told.rejected:
            return None
        runs = told.total > 0 and all(told.acked.get(each, 0) >= told.total for each in given.resources)
        return given if runs else None

    def _wrote(self, wanted: Wanted, body: bytes) -> None:
        """Know what was written before the watch tells it, and tell of what turned."""
        self.events.tell(wanted)
        plural = "ratelimitpolicies" if wanted.kind == "RateLimitPolicy" else "cacheprofiles"
        self.seen(plural, "MODIFIED", msgspec.json.decode(body))
