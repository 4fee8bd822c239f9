"""What the operator knows of the cluster: events and lists in, a world out. Belongs to the control loop."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ratelimit_operator.api.objects import observe_policy, observe_profile
from ratelimit_operator.cluster.api_server import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    GATEWAY_CLASSES,
    GATEWAYS,
    GRPC_ROUTES,
    HTTP_ROUTES,
    NAMESPACES,
    POLICIES,
    PROFILES,
    ApiServer,
)
from ratelimit_operator.cluster.filter_keeper import SETTINGS_CONFIG_MAP
from ratelimit_operator.cluster.inventory import Inventory, Kept
from ratelimit_operator.handlers.watching import Watched
from ratelimit_operator.plan.attachment import Mesh
from ratelimit_operator.plan.distribution import Enforcement
from ratelimit_operator.plan.index import Index, key_of
from ratelimit_operator.plan.judging import JUDGED
from ratelimit_operator.plan.world import ObservedPolicy, ObservedProfile, Scope, World
from ratelimit_service.policy.targets.reading import read_topology
from ratelimit_service.policy.targets.topology import GATEWAY_GROUP

_SERVICE_LABEL: Final = "kubernetes.io/service-name"

MESH: Final = {GATEWAYS: "Gateway", HTTP_ROUTES: "HTTPRoute", GRPC_ROUTES: "GRPCRoute", GATEWAY_CLASSES: "GatewayClass"}
"""Kinds of the Gateway API that attaching looks at."""


def _spec_of(observed: Any) -> tuple[str, int]:
    """Which spec of which object of ours it is."""
    return observed.uid, observed.generation


Ready = Mapping[str, bool]
"""Replicas by name, and whether they are ready."""


def _labels(body: Mapping[str, Any], _before: object) -> Mapping[str, str]:
    return dict(body["metadata"].get("labels") or {})


def _endpoints(body: Mapping[str, Any], _before: object) -> Ready:
    """The replicas of an EndpointSlice: a pod's name, else its first address."""
    found = {}
    for each in body.get("endpoints") or ():
        name = (each.get("targetRef") or {}).get("name") or next(iter(each.get("addresses") or ("",)))
        # Unknown counts as ready, as Kubernetes asks of consumers.
        found[name] = (each.get("conditions") or {}).get("ready") is not False
    return found


def _body_of(kind: str) -> Callable[[Mapping[str, Any], object], Mapping[str, Any]]:
    """Keeps what attaching reads of a kind; members of a list do not say what they are."""

    def view(body: Mapping[str, Any], _before: object) -> Mapping[str, Any]:
        return {
            "apiVersion": f"{GATEWAY_GROUP}/v1",
            "kind": kind,
            "metadata": {
                each: body["metadata"].get(each) for each in ("namespace", "name", "uid", "creationTimestamp")
            },
            "spec": body.get("spec") or {},
        }

    return view


def _data(body: Mapping[str, Any], _before: object) -> Mapping[str, str]:
    return dict(body.get("data") or {})


class Change(enum.Enum):
    """What an event has changed of what is known."""

    NOTHING = "nothing"
    STATUS = "status"
    """Something beside the spec of an object of ours: no plan is made from it."""
    CONTENT = "content"


class Observation:
    """Everything that was seen.

    Args:
        api: The API server.
        scope: Of the release.
        service: Name of the service's Service.
        gateway_api: Gateways and routes are looked at.
    """

    def __init__(self, api: ApiServer, scope: Scope, service: str, *, gateway_api: bool = False) -> None:
        self._scope = scope
        self._service = service
        everywhere = sorted(scope.namespaces) or [""]
        own = [scope.release_namespace]
        self.policies: Index[ObservedPolicy] = Index(observe_policy)
        self.profiles: Index[ObservedProfile] = Index(observe_profile)
        self._namespaces: Index[Mapping[str, str]] = Index(_labels)
        self._slices: Index[Ready] = Index(_endpoints)
        self._settings: Index[Mapping[str, str]] = Index(_data)
        profile_places = sorted({*scope.namespaces, *own}) if scope.namespaces else [""]
        kinds = {
            "ratelimitpolicies": Kept(POLICIES, self.policies, everywhere),
            "cacheprofiles": Kept(PROFILES, self.profiles, profile_places),
            "endpointslices": Kept(
                ENDPOINT_SLICES, self._slices, own, {"labelSelector": f"{_SERVICE_LABEL}={service}"}
            ),
            "configmaps": Kept(
                CONFIG_MAPS, self._settings, own, {"fieldSelector": f"metadata.name={SETTINGS_CONFIG_MAP}"}
            ),
        }
        self._meshed = {each.plural: Index(_body_of(kind)) for each, kind in MESH.items()} if gateway_api else {}
        kinds |= {each.plural: Kept(each, self._meshed[each.plural]) for each in MESH if self._meshed}
        if scope.reads_labels:
            kinds["namespaces"] = Kept(NAMESPACES, self._namespaces)
        self.inventory = Inventory(api, kinds)
        self.last_event_s: dict[str, float] = {}

    def watched(self) -> list[Watched]:
        """What has to be watched."""
        group, version = "tidegate.dev", "v1alpha1"
        ours = [(group, version, "ratelimitpolicies"), (group, version, "cacheprofiles")]
        scope = self._scope
        labels = [("", "v1", "namespaces")] if scope.reads_labels else []
        places = sorted({*scope.namespaces, scope.release_namespace}) if scope.namespaces else []
        # Kinds that may come later are found by scanning; without it, by the lists alone.
        mesh = [(GATEWAY_GROUP, "v1", plural) for plural in self._meshed] if not scope.namespaces else []
        return [
            Watched([*ours, *labels, *mesh], namespaces=places, scans=not scope.namespaces),
            Watched(
                [("discovery.k8s.io", "v1", "endpointslices"), ("", "v1", "configmaps")],
                namespaces=[scope.release_namespace],
                names={"configmaps": SETTINGS_CONFIG_MAP},
                labels={"endpointslices": f"{_SERVICE_LABEL}={self._service}"},
            ),
        ]

    def see(self, plural: str, event: str | None, body: Mapping[str, Any]) -> Change:
        """An event has come."""
        kind = self.inventory.kinds.get(plural)
        if kind is None or not self._concerns(plural, body):
            return Change.NOTHING
        self.last_event_s[plural] = time.monotonic()
        if event == "DELETED":
            return Change.CONTENT if kind.index.remove(body) else Change.NOTHING
        key = key_of(body["metadata"])
        before = kind.index.get(key)
        if not kind.index.put(body, time.monotonic()):
            return Change.NOTHING
        after = kind.index.get(key)
        if plural in JUDGED and before is not None and _spec_of(before) == _spec_of(after):
            return Change.STATUS
        return Change.CONTENT

    def _concerns(self, plural: str, body: Mapping[str, Any]) -> bool:
        """A watch with names or selectors tells of nothing else; kopf's own are kept as narrow here."""
        metadata = body["metadata"]
        if plural == "configmaps":
            return key_of(metadata) == f"{self._scope.release_namespace}/{SETTINGS_CONFIG_MAP}"
        if plural == "endpointslices":
            return (metadata.get("labels") or {}).get(_SERVICE_LABEL) == self._service
        if plural == "ratelimitpolicies":
            return self._scope.covers(metadata["namespace"])
        return True

    def world(self) -> World:
        """All of it, as a plan takes it."""
        return World(
            policies=self.policies.objects(),
            profiles=self.profiles.objects(),
            namespaces=self._namespaces.objects(),
            scope=self._scope,
            enforcement=self.enforcement(),
        )

    def mesh(self, *, has_envoy_filters: bool) -> Mesh:
        """What there is for policies to attach to."""
        if not self._meshed or self.inventory.kinds[GATEWAYS.plural].is_absent:
            return Mesh(has_envoy_filters=has_envoy_filters)
        bodies = [body for index in self._meshed.values() for body in index.objects().values()]
        classes = self._meshed[GATEWAY_CLASSES.plural].objects()
        gateways = self._meshed[GATEWAYS.plural].objects()
        return Mesh(
            topology=msgspec.structs.replace(read_topology(bodies), namespaces=self._namespaces.objects()),
            controllers={name: body["spec"].get("controllerName", "") for name, body in classes.items()},
            uids={key: body["metadata"]["uid"] for key, body in gateways.items()},
            has_envoy_filters=has_envoy_filters,
        )

    def enforcement(self) -> Enforcement:
        """Position of the kill switch; a word that nobody knows enforces."""
        shadow = self._setting("enforcement") == Enforcement.SHADOW.value
        return Enforcement.SHADOW if shadow else Enforcement.ENFORCE

    def rollback(self) -> str:
        """Version of the kept set that is to be given out, empty: what is applied is."""
        return self._setting("rollback")

    def attaches(self) -> bool:
        """Whether Envoy may be made to ask; `attachment: Off` is what `tidegate-operator detach` writes."""
        return self._setting("attachment") != "Off"

    def _setting(self, name: str) -> str:
        return next((data.get(name, "") for data in self._settings.objects().values()), "")

    def ready_replicas(self) -> frozenset[str]:
        """Ready endpoints of the service."""
        return frozenset(
            name for ready in self._slices.objects().values() for name, is_ready in ready.items() if is_ready
        )
