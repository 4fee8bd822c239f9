"""Gateways, routes and namespaces out of JSON-like objects, as the API server or a file gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ratelimit_service.policy.model import TargetKind
from ratelimit_service.policy.targets.topology import (
    ANY_HOST,
    GATEWAY_GROUP,
    Gateway,
    Listener,
    Parent,
    Requirement,
    Route,
    Topology,
)

_NAMESPACE: Final = "Namespace"


def read_topology(objects: Sequence[Mapping[str, object]]) -> Topology:
    """All of them among some objects; others are passed over.

    What cannot be read is left out: the Gateway's own controller tells its author.
    """
    gateways: list[Gateway] = []
    routes: list[Route] = []
    namespaces: dict[str, Mapping[str, str]] = {}
    for item in objects:
        kind = item.get("kind")
        if not is_of_topology(item):
            continue
        if kind == _NAMESPACE:
            metadata = _map(item.get("metadata"))
            namespaces[_text(metadata, "name")] = {key: str(text) for key, text in _map(metadata.get("labels")).items()}
        elif kind == TargetKind.GATEWAY.value:
            gateways.append(_gateway(item))
        else:
            routes.append(_route(item, TargetKind(kind)))
    return Topology(tuple(gateways), tuple(routes), namespaces)


def is_of_topology(item: Mapping[str, object]) -> bool:
    """Whether an object is one that policies can attach to, or a namespace, whose labels a listener may ask for."""
    group, kind = str(item.get("apiVersion", "")).partition("/")[0], item.get("kind")
    if kind == _NAMESPACE:
        return group == "v1"
    return group == GATEWAY_GROUP and kind in {each.value for each in TargetKind}


def _gateway(item: Mapping[str, object]) -> Gateway:
    spec, metadata = _map(item.get("spec")), _map(item.get("metadata"))
    listeners = []
    for written in _maps(spec.get("listeners")):
        namespaces = _map(_map(written.get("allowedRoutes")).get("namespaces"))
        allowed = namespaces.get("from")
        listeners.append(
            Listener(
                name=_text(written, "name"),
                port=_number(written, "port"),
                protocol=_text(written, "protocol") or "HTTP",
                hostname=_text(written, "hostname") or ANY_HOST,
                same_namespace=allowed not in ("All", "Selector"),
                selector=tuple(_requirements(_map(namespaces.get("selector")))) if allowed == "Selector" else (),
            )
        )
    return Gateway(
        namespace=_namespace(metadata),
        name=_text(metadata, "name"),
        listeners=tuple(listeners),
        class_name=_text(spec, "gatewayClassName"),
        created=_text(metadata, "creationTimestamp"),
    )


def _requirements(selector: Mapping[str, object]) -> Iterator[Requirement]:
    for key, value in _map(selector.get("matchLabels")).items():
        yield Requirement(key, "In", (str(value),))
    for each in _maps(selector.get("matchExpressions")):
        values = each.get("values")
        listed = tuple(map(str, values)) if isinstance(values, list | tuple) else ()
        yield Requirement(_text(each, "key"), _text(each, "operator"), listed)


def _route(item: Mapping[str, object], kind: TargetKind) -> Route:
    spec, metadata = _map(item.get("spec")), _map(item.get("metadata"))
    namespace = _namespace(metadata)
    parents = [
        Parent(
            _text(parent, "namespace") or namespace,
            _text(parent, "name"),
            _text(parent, "sectionName"),
            _number(parent, "port"),
        )
        for parent in _maps(spec.get("parentRefs"))
        if _text(parent, "kind") in ("", TargetKind.GATEWAY.value)
        and (parent.get("group") is None or _text(parent, "group") == GATEWAY_GROUP)
    ]
    names = spec.get("hostnames")
    hostnames = [str(hostname) for hostname in names] if isinstance(names, list | tuple) else []
    written = _maps(spec.get("rules"))
    redirects = frozenset(
        index
        for index, rule in enumerate(written)
        if any(_text(each, "type") == "RequestRedirect" for each in _maps(rule.get("filters")))
    )
    return Route(
        kind=kind,
        namespace=namespace,
        name=_text(metadata, "name"),
        hostnames=tuple(hostnames),
        parents=tuple(parents),
        rules=tuple(_text(rule, "name") for rule in written) or ("",),
        redirects=redirects,
    )


def _namespace(metadata: Mapping[str, object]) -> str:
    return _text(metadata, "namespace") or "default"


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _maps(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def _text(item: Mapping[str, object], name: str) -> str:
    value = item.get(name)
    return value if isinstance(value, str) else ""


def _number(item: Mapping[str, object], name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
