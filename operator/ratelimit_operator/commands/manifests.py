"""`tidegate render … --cluster`: policies, Gateways and routes as the API server holds them."""

from __future__ import annotations

import asyncio
from typing import Final

from ratelimit_operator.api.objects import observe_policy
from ratelimit_operator.cluster.access import Access, NoAccess
from ratelimit_operator.cluster.api_server import (
    GATEWAYS,
    GRPC_ROUTES,
    HTTP_ROUTES,
    NAMESPACES,
    POLICIES,
    ApiFailure,
    ApiServer,
    Collection,
)
from ratelimit_operator.plan.tenancy import policy_refusal
from ratelimit_operator.plan.world import ObservedPolicy, Scope, World
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.targets.held import Held, NotReadable
from ratelimit_service.policy.targets.reading import read_topology
from ratelimit_service.policy.targets.topology import GATEWAY_GROUP

_TOPOLOGY: Final = {
    GATEWAYS: (f"{GATEWAY_GROUP}/v1", "Gateway"),
    HTTP_ROUTES: (f"{GATEWAY_GROUP}/v1", "HTTPRoute"),
    GRPC_ROUTES: (f"{GATEWAY_GROUP}/v1", "GRPCRoute"),
    NAMESPACES: ("v1", "Namespace"),
}
"""Members of a list do not say what they are."""


def read_cluster(kubeconfig: str) -> Held:
    """Everything that a policy is rendered from; `kubeconfig` empty: the environment's, else the user's.

    Raises:
        NotReadable: There is no API server, it refuses, or it does not know our kinds.
    """
    try:
        return asyncio.run(_read(Access(kubeconfig)))
    except (NoAccess, ApiFailure) as error:
        raise NotReadable(str(error)) from error


async def _read(access: Access) -> Held:
    api = ApiServer(access)
    try:
        written = await api.list_objects(POLICIES)
        if written is None:
            raise NotReadable("the API server has no RateLimitPolicies: their definitions are not installed")
        objects = [each for collection in _TOPOLOGY for each in await _members(api, collection)]
    finally:
        api.close()
    topology = read_topology(objects)
    world = World({}, {}, topology.namespaces, Scope(release_namespace=""))
    policies: list[RateLimitPolicy] = []
    passed_over: list[str] = []
    for observed in map(observe_policy, written):
        refused = _refusal(observed, world)
        if refused or observed.manifest is None:
            passed_over.append(f"RateLimitPolicy {observed.key} is passed over: {refused}")
        else:
            policies.append(observed.manifest)
    platforms = frozenset(filter(world.is_platform, topology.namespaces))
    return Held(tuple(policies), topology, platforms, tuple(passed_over))


async def _members(api: ApiServer, collection: Collection) -> list[dict[str, object]]:
    """Every object of a kind; none where the kind is not installed."""
    api_version, kind = _TOPOLOGY[collection]
    found = await api.list_objects(collection) or ()
    return [{**each, "apiVersion": api_version, "kind": kind} for each in found]


def _refusal(observed: ObservedPolicy, world: World) -> str:
    """Why the operator would not take this form, empty: it would."""
    if observed.manifest is None:
        return "; ".join(observed.problems)
    return policy_refusal(observed.manifest, world) or ""
