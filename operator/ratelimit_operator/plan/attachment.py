"""What makes Envoy ask for policies with targets: EnvoyFilters that have to be there, and a verdict per target.

Pure. A Gateway of Istio's class gets an EnvoyFilter where that is switched on; for every other there is a line to run,
and the verdict names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_operator.api.conditions import ConditionType, Reason, Verdict, failing, holding
from ratelimit_service.policy.manifest_compile import policy_name
from ratelimit_service.policy.model import RateLimitPolicy, TargetKind
from ratelimit_service.policy.render.actions import Config, blurred
from ratelimit_service.policy.render.istio import Ambiguous, render_gateway, render_workload
from ratelimit_service.policy.render.parts import ServiceAddress
from ratelimit_service.policy.targets.coverage import Coverage
from ratelimit_service.policy.targets.precedence import Target, target_of
from ratelimit_service.policy.targets.topology import Gateway, Route, Topology

ISTIO_CONTROLLER: Final = "istio.io/gateway-controller"
"""`spec.controllerName` of Istio's GatewayClasses."""

ENVOY_GATEWAY_CONTROLLER: Final = "gateway.envoyproxy.io/gatewayclass-controller"

_RENDERERS: Final = {ISTIO_CONTROLLER: "istio", ENVOY_GATEWAY_CONTROLLER: "envoy-gateway"}
_REASONS_BY_WEIGHT: Final = (
    Reason.UNSUPPORTED_TARGET,
    Reason.TARGET_NOT_FOUND,
    Reason.AMBIGUOUS_ROUTE_NAME,
    Reason.CONFLICTED,
    Reason.NO_INTEGRATION,
)


class Mesh(msgspec.Struct, frozen=True):
    """What the cluster holds for policies to attach to.

    Attributes:
        topology: Gateways and routes, None: the Gateway API is not installed.
        controllers: `spec.controllerName` by GatewayClass.
        uids: Of each Gateway, by `<namespace>/<name>`: an EnvoyFilter is owned by its Gateway.
        has_envoy_filters: Istio's EnvoyFilter is installed.
    """

    topology: Topology | None = None
    controllers: Mapping[str, str] = {}
    uids: Mapping[str, str] = {}
    has_envoy_filters: bool = False


class AttachSettings(msgspec.Struct, frozen=True):
    """How the release attaches.

    Attributes:
        istio: EnvoyFilters are written.
        service: Where Envoy finds the service.
        controller: Name of the release, on everything that it writes.
    """

    istio: bool
    service: ServiceAddress
    controller: str


class PolicyAttachment(msgspec.Struct, frozen=True):
    """What became of one policy.

    Attributes:
        verdict: Condition Attached.
        targets: Per target reference, in its order: the same for that target alone.
    """

    verdict: Verdict
    targets: tuple[Verdict, ...] = ()


class Attachment(msgspec.Struct, frozen=True):
    """Everything that is to be written and said.

    Attributes:
        filters: EnvoyFilters by `<namespace>/<name>`.
        policies: By `<namespace>/<name>`; policies with a domain have none.
    """

    filters: Mapping[str, Config]
    policies: Mapping[str, PolicyAttachment]


def attach(
    policies: Sequence[RateLimitPolicy],
    uids: Mapping[str, str],
    mesh: Mesh,
    settings: AttachSettings,
    platforms: frozenset[str],
) -> Attachment:
    """Decide for the live forms of all policies.

    Args:
        policies: Live forms.
        uids: Of the policies, by `<namespace>/<name>`.
        mesh: What there is.
        settings: Of the release.
        platforms: Namespaces that may write where an EnvoyFilter reaches every namespace.
    """
    coverage = Coverage(policies, mesh.topology or Topology())
    filters: dict[str, Config] = {}
    ambiguous: list[Ambiguous] = []
    if settings.istio and mesh.has_envoy_filters:
        for gateway in coverage.gateways():
            if mesh.controllers.get(gateway.class_name) == ISTIO_CONTROLLER:
                made = render_gateway(gateway, coverage, settings.service)
                ambiguous += made.ambiguous
                owner = _owner("gateway.networking.k8s.io/v1", "Gateway", gateway.name, mesh.uids, str(gateway))
                _put(filters, made.manifest, owner, settings)
    found: dict[str, PolicyAttachment] = {}
    notes = _notes(coverage)
    for policy in policies:
        name = policy_name(policy)
        if policy.spec.workload_selector is not None:
            found[name] = _selecting(policy, uids, mesh, settings, platforms, filters)
        elif policy.spec.target_refs:
            found[name] = _noted(_targeting(policy, coverage, mesh, settings, ambiguous), notes.get(name, {}))
    return Attachment(filters, found)


def _notes(coverage: Coverage) -> dict[str, dict[str, None]]:
    """What the authors of policies should know, though it keeps nothing from being attached; by policy."""
    notes: dict[str, dict[str, None]] = {}
    for gateway in coverage.topology.gateways:
        for policy in coverage.ignored_denials(gateway):
            text = f"failure.onServiceError is ignored on {gateway}: Envoy has one answer per filter, its own policy's"
            notes.setdefault(policy_name(policy), {})[text] = None
        for point in coverage.points(gateway):
            for each in blurred(coverage.at(point)):
                why = f"{each.sibling.name} shares its values"
                text = f"rule {each.rule.name} is overridden and reached all the same: {why}"
                notes.setdefault(policy_name(each.policy), {})[text] = None
    return notes


def _noted(attachment: PolicyAttachment, notes: Iterable[str]) -> PolicyAttachment:
    verdict = attachment.verdict
    text = "; ".join([verdict.message, *notes])
    return msgspec.structs.replace(attachment, verdict=msgspec.structs.replace(verdict, message=text))


def _put(filters: dict[str, Config], manifest: Config, owner: Config | None, settings: AttachSettings) -> None:
    metadata = manifest["metadata"]
    assert isinstance(metadata, dict)
    labels = {**metadata["labels"], "tidegate.dev/controller": settings.controller}
    more = {} if owner is None else {"ownerReferences": [owner]}
    filters[f"{metadata['namespace']}/{metadata['name']}"] = {
        **manifest,
        "metadata": {**metadata, "labels": labels, **more},
    }


def _owner(api_version: str, kind: str, name: str, uids: Mapping[str, str], key: str) -> Config | None:
    uid = uids.get(key.rpartition(" ")[2], "")
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid} if uid else None


def _selecting(
    policy: RateLimitPolicy,
    uids: Mapping[str, str],
    mesh: Mesh,
    settings: AttachSettings,
    platforms: frozenset[str],
    filters: dict[str, Config],
) -> PolicyAttachment:
    """A policy with a `workloadSelector`: Istio's own, or nothing."""
    if not settings.istio or not mesh.has_envoy_filters:
        why = "Istio is not switched on (chart value istio.enabled)" if not settings.istio else "Istio is not installed"
        return PolicyAttachment(_no_integration(why, "tidegate render istio --cluster | kubectl apply -f -"))
    made = render_workload(policy, settings.service, platform=policy.metadata.namespace in platforms)
    if not made.manifest:
        return PolicyAttachment(_failed(Reason.UNSUPPORTED_TARGET, made.problems[0].message))
    name = policy_name(policy)
    _put(
        filters,
        made.manifest,
        _owner("tidegate.dev/v1alpha1", "RateLimitPolicy", policy.metadata.name, uids, name),
        settings,
    )
    return PolicyAttachment(holding(ConditionType.ATTACHED, "an EnvoyFilter makes the selected workloads ask"))


def _targeting(
    policy: RateLimitPolicy, coverage: Coverage, mesh: Mesh, settings: AttachSettings, ambiguous: Sequence[Ambiguous]
) -> PolicyAttachment:
    if mesh.topology is None:
        verdict = _failed(Reason.TARGET_NOT_FOUND, "the Gateway API is not installed in this cluster")
        return PolicyAttachment(verdict, (verdict,) * len(policy.spec.target_refs))
    targets = [target_of(policy, reference) for reference in policy.spec.target_refs]
    verdicts = tuple(_verdict(policy, target, coverage, mesh, settings, ambiguous) for target in targets)
    failed = [each for each in verdicts if not each.holds]
    if not failed:
        return PolicyAttachment(holding(ConditionType.ATTACHED, "Envoy asks for every target"), verdicts)
    worst = min(failed, key=lambda each: _REASONS_BY_WEIGHT.index(each.reason))
    message = "; ".join(dict.fromkeys(each.message for each in failed))
    return PolicyAttachment(_failed(worst.reason, message), verdicts)


def _verdict(
    policy: RateLimitPolicy,
    target: Target | None,
    coverage: Coverage,
    mesh: Mesh,
    settings: AttachSettings,
    ambiguous: Sequence[Ambiguous],
) -> Verdict:
    """Attached, for one target."""
    if target is None:
        return _failed(Reason.UNSUPPORTED_TARGET, "a policy attaches to Gateways, HTTPRoutes and GRPCRoutes only")
    if not coverage.exists(target):
        return _failed(Reason.TARGET_NOT_FOUND, f"there is no {target}")
    winner = coverage.attached.winners[target]
    if winner is not policy:
        return _failed(Reason.CONFLICTED, f"{target} has the older policy {policy_name(winner)}")
    gateways = tuple(_gateways(target, coverage.topology))
    if not gateways:
        return _failed(Reason.TARGET_NOT_FOUND, f"{target} is attached to no Gateway")
    for each in ambiguous:
        if any(_names(target, route) for route in each.routes):
            return _failed(Reason.AMBIGUOUS_ROUTE_NAME, each.message)
    missing = [gateway for gateway in gateways if not _written(gateway, mesh, settings)]
    if missing:
        lines = [_line(gateway, mesh) for gateway in missing]
        return _no_integration(f"{', '.join(map(str, missing))}: nothing is written for this class", "; ".join(lines))
    return holding(ConditionType.ATTACHED, f"an EnvoyFilter makes {', '.join(map(str, gateways))} ask")


def _written(gateway: Gateway, mesh: Mesh, settings: AttachSettings) -> bool:
    is_istios = mesh.controllers.get(gateway.class_name) == ISTIO_CONTROLLER
    return settings.istio and mesh.has_envoy_filters and is_istios


def _line(gateway: Gateway, mesh: Mesh) -> str:
    renderer = _RENDERERS.get(mesh.controllers.get(gateway.class_name, ""), "envoy")
    line = f"tidegate render {renderer} --cluster --gateway {gateway.namespace}/{gateway.name}"
    return line if renderer == "envoy" else f"{line} | kubectl apply -f -"


def _gateways(target: Target, topology: Topology) -> Iterable[Gateway]:
    """The Gateways that a target is on: itself, or those that its route is attached to."""
    for gateway in topology.gateways:
        if target.kind is TargetKind.GATEWAY:
            if (gateway.namespace, gateway.name) == (target.namespace, target.name):
                yield gateway
        elif any(
            topology.hostnames(gateway, listener, route)
            for route in topology.routes
            if _names(target, route)
            for listener in gateway.listeners
        ):
            yield gateway


def _names(target: Target, route: Route) -> bool:
    return (target.kind, target.namespace, target.name) == (route.kind, route.namespace, route.name)


def _failed(reason: Reason, message: str) -> Verdict:
    return failing(ConditionType.ATTACHED, reason, message)


def _no_integration(why: str, line: str) -> Verdict:
    return _failed(Reason.NO_INTEGRATION, f"{why}; run: {line}")
