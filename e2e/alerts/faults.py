"""What goes wrong in an installation, done for real, and the alerts that must tell of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, NamedTuple

from e2e.alerts.world import MANY_RULES, POLICIES, UNMOUNTED, World, policy, rule
from e2e.support.api_server import NAMESPACE
from e2e.support.replicas import replica
from support.abusers import ABUSERS, attack

_STANDSTILL_S: Final = 3.0
_SLOW_S: Final = 0.004
"""One way; there and back is more than the 5 ms of the objective and less than the deadline of 10."""
_ABUSES: Final = 15
_LONGEST_ABUSE_S: Final = 20.0


class Fault(NamedTuple):
    """One thing that goes wrong, while its block lasts.

    Attributes:
        name: What goes wrong.
        alerts: Each of them must fire.
        inject: Breaks it; the end of the block mends it.
    """

    name: str
    alerts: Sequence[str]
    inject: Callable[[World], AbstractContextManager[None]]


@contextmanager
def _redis_stands_still(world: World) -> Iterator[None]:
    world.redis.stop()
    try:
        yield
    finally:
        world.redis.go_on()


@contextmanager
def _redis_is_far(world: World) -> Iterator[None]:
    world.link.delay_seconds = _SLOW_S
    try:
        yield
    finally:
        world.link.delay_seconds = 0.0


@contextmanager
def _redis_may_evict(world: World) -> Iterator[None]:
    # As after a restart with another configuration: it is read when a connection is made.
    _restart_redis_with(world, "allkeys-lru")
    try:
        yield
    finally:
        _restart_redis_with(world, "noeviction")


def _restart_redis_with(world: World, memory_policy: str) -> None:
    world.redis.cli("CONFIG", "SET", "maxmemory-policy", memory_policy)
    world.redis.cli("CLIENT", "KILL", "TYPE", "normal")


@contextmanager
def _more_keys_than_room(world: World) -> Iterator[None]:
    with world.load.adding(world.alone.grpc, "shop.checkout", "user", "new-#"):
        yield


@contextmanager
def _abusers(world: World) -> Iterator[None]:
    flood = next(each for each in ABUSERS if each.name == "PING flood")
    for _ in range(_ABUSES):
        assert attack(world.edge.grpc_port, flood, _LONGEST_ABUSE_S).closed
    yield


@contextmanager
def _no_operator_for_a_new_replica(world: World) -> Iterator[None]:
    with replica(world.folder, "late", ["127.0.0.1:1"]) as late:
        world.prometheus.scrape("late", [late.admin])
        try:
            yield
        finally:
            world.prometheus.scrape("late", [])


@contextmanager
def _wrong_policy_file(world: World) -> Iterator[None]:
    world.second.write([policy("checkout", [rule("per-user", "user", -1)])])
    try:
        yield
    finally:
        world.second.write(POLICIES)


@contextmanager
def _one_replica_with_other_files(world: World) -> Iterator[None]:
    world.second.write([*POLICIES, policy("new", [rule("per-user", "user", 9)])])
    try:
        yield
    finally:
        world.second.write(POLICIES)


@contextmanager
def _more_rules_than_series(world: World) -> Iterator[None]:
    world.alone.write([*POLICIES, policy("wide", [rule(f"r{n}", f"k{n}", 1_000_000) for n in range(MANY_RULES)])])
    with ExitStack() as calls:
        for number in range(MANY_RULES):
            calls.enter_context(world.load.adding(world.alone.grpc, "shop.wide", f"k{number}", "x"))
        yield


@contextmanager
def _domain_with_a_typing_error(world: World) -> Iterator[None]:
    with world.load.adding(world.edge.grpc, "shop.checkuot", "user", "ann"):
        yield


@contextmanager
def _too_much_of_one_plan(world: World) -> Iterator[None]:
    with world.load.adding(world.edge.grpc, "shop.checkout", "plan", "free"):
        yield


@contextmanager
def _too_much_for_a_shadow(world: World) -> Iterator[None]:
    with world.load.adding(world.edge.grpc, "shop.search", "api_key", "partner"):
        yield


@contextmanager
def _kill_switch(world: World) -> Iterator[None]:
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tidegate-settings", "namespace": NAMESPACE},
        "data": {"enforcement": "Shadow"},
    }
    world.plane.apply(settings)
    try:
        yield
    finally:
        world.plane.delete(settings)


@contextmanager
def _secret_that_is_not_mounted(world: World) -> Iterator[None]:
    store = {"type": "Redis", "endpoints": ["127.0.0.1:1"], "auth": {"secretRef": {"name": UNMOUNTED}}}
    profile = {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "CacheProfile",
        "metadata": {"name": "shared", "namespace": "shop"},
        "spec": {"store": store},
    }
    using = policy("using", [rule("per-user", "user", 5)], cacheProfileRef={"name": "shared"})
    world.plane.apply(profile)
    world.plane.apply(using)
    try:
        yield
    finally:
        world.plane.delete(using)
        world.plane.delete(profile)


@contextmanager
def _replica_that_stands_still(world: World) -> Iterator[None]:
    process = world.plane.replica.process
    process.send(signal.SIGSTOP)
    try:
        world.plane.apply(policy("kept0", [rule("per-user", "user", 6)]))
        # The fault lasts so long: it is what is measured, nothing is waited for.
        time.sleep(_STANDSTILL_S)
    finally:
        process.send(signal.SIGCONT)
    yield
    world.plane.settle()


@contextmanager
def _most_policies_deleted(world: World) -> Iterator[None]:
    # All of it reaches the operator at once, as from `kubectl delete --all` on a quick cluster.
    world.plane.proxy.resumed.clear()
    for manifest in world.kept[1:]:
        world.plane.delete(manifest)
    world.plane.proxy.resumed.set()
    yield
    for manifest in world.kept[1:]:
        world.plane.apply(manifest)
    world.plane.settle()


@contextmanager
def _api_server_stands_still(world: World) -> Iterator[None]:
    world.plane.proxy.resumed.clear()
    try:
        yield
    finally:
        world.plane.proxy.resumed.set()
        world.plane.settle()


@contextmanager
def _operator_is_killed(world: World) -> Iterator[None]:
    world.plane.operator.process.send(signal.SIGKILL)
    world.plane.operator.process.wait()
    yield
    world.plane.restart()
    world.plane.settle()
    world.watch_operator()


@contextmanager
def _kind_that_cannot_be_listed(world: World) -> Iterator[None]:
    world.plane.operator.process.send(signal.SIGTERM)
    world.plane.operator.process.wait()
    world.plane.proxy.refuse = lambda method, path: 500 if method == "GET" and "cacheprofiles" in path else 0
    world.plane.restart()
    world.watch_operator()
    try:
        yield
    finally:
        world.plane.proxy.refuse = lambda _method, _path: 0
    world.plane.settle()


@contextmanager
def _service_of_an_envoy_is_killed(world: World) -> Iterator[None]:
    world.edge.process.send(signal.SIGKILL)
    world.edge.process.wait()
    yield
    world.restart_edge()


FAULTS: Final = (
    Fault(
        "Redis stands still",
        (
            "TidegateStoreDown",
            "TidegateFallbackActive",
            "TidegateErrorBudgetBurnFast",
            "TidegateErrorBudgetBurnSlow",
        ),
        _redis_stands_still,
    ),
    Fault("Redis is far away", ("TidegateLatencyBudgetBurn",), _redis_is_far),
    Fault("Redis was restarted as a cache", ("TidegateStoreMayEvict",), _redis_may_evict),
    Fault("more keys than the memory store holds", ("TidegateStoreFull",), _more_keys_than_room),
    Fault("clients that flood", ("TidegateConnectionAbuse",), _abusers),
    Fault("a new replica finds no operator", ("TidegateReplicaNotReady",), _no_operator_for_a_new_replica),
    Fault("a policy file is wrong", ("TidegateConfigRejected",), _wrong_policy_file),
    Fault("one replica has other files", ("TidegateConfigVersionSkew",), _one_replica_with_other_files),
    Fault("more rules than series", ("TidegateSeriesDropped",), _more_rules_than_series),
    Fault("Envoy's domain has a typing error", ("TidegateUnknownDomain",), _domain_with_a_typing_error),
    Fault("too many calls of one plan", ("TidegateRuleSaturated",), _too_much_of_one_plan),
    Fault("too many calls for a shadow rule", ("TidegateShadowWouldReject",), _too_much_for_a_shadow),
    Fault("the kill switch is forgotten", ("TidegateEnforcementShadow",), _kill_switch),
    Fault(
        "a secret is not mounted",
        ("TidegateResourceQuarantined", "TidegatePolicyNotProgrammed"),
        _secret_that_is_not_mounted,
    ),
    Fault("a replica stands still for three seconds", ("TidegatePropagationSlow",), _replica_that_stands_still),
    Fault("most policies are deleted", ("TidegatePushHeld",), _most_policies_deleted),
    Fault("the API server stands still", ("TidegateWatchStale",), _api_server_stands_still),
    Fault("the operator is killed", ("TidegateOperatorNoLeader",), _operator_is_killed),
    Fault("a kind cannot be listed", ("TidegateOperatorNotReady",), _kind_that_cannot_be_listed),
    Fault("the service of an Envoy is killed", ("TidegateEnvoyFailOpen",), _service_of_an_envoy_is_killed),
)
