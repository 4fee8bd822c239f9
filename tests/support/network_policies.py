"""Who may connect to whom under NetworkPolicies, as Kubernetes defines it: what no policy selects is open."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

Policy = Mapping[str, Any]


class Peer(msgspec.Struct, frozen=True):
    """An end of a connection: a pod, or an address outside when it has no namespace.

    Attributes:
        name: For messages.
        namespace: Of the pod, empty: not a pod of the cluster.
        labels: Of the pod.
        ports: Names of its container ports.
        address: Where it is not a pod.
    """

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = {}
    ports: Mapping[str, int] = {}
    address: str = "203.0.113.7"


def may_connect(policies: Iterable[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is allowed at both of its ends."""
    policies = list(policies)
    leaves = _allowed(policies, "Egress", source, target, target, port, protocol)
    enters = _allowed(policies, "Ingress", target, source, target, port, protocol)
    return leaves and enters


def _allowed(
    policies: Sequence[Policy], direction: str, of: Peer, other: Peer, target: Peer, port: int, protocol: str
) -> bool:
    selecting = [
        each
        for each in policies
        if direction in each["spec"]["policyTypes"]
        and each["metadata"]["namespace"] == of.namespace
        and _selects(each["spec"]["podSelector"], of.labels)
    ]
    if not selecting:
        return True
    side, key = ("from", "ingress") if direction == "Ingress" else ("to", "egress")
    return any(
        _names_port(rule, target, port, protocol) and _names_peer(rule.get(side), other, each["metadata"]["namespace"])
        for each in selecting
        for rule in each["spec"].get(key) or ()
    )


def _names_port(rule: Mapping[str, Any], target: Peer, port: int, protocol: str) -> bool:
    wanted = rule.get("ports")
    if not wanted:
        return True
    for each in wanted:
        number = target.ports.get(each["port"]) if isinstance(each["port"], str) else each["port"]
        if number == port and each.get("protocol", "TCP") == protocol:
            return True
    return False


def _names_peer(peers: Sequence[Mapping[str, Any]] | None, other: Peer, namespace: str) -> bool:
    if not peers:
        return True
    return any(_is(peer, other, namespace) for peer in peers)


def _is(peer: Mapping[str, Any], other: Peer, namespace: str) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        address = ipaddress.ip_address(other.address)
        inside = address in ipaddress.ip_network(block["cidr"])
        return (
            not other.namespace
            and inside
            and not any(address in ipaddress.ip_network(each) for each in block.get("except", ()))
        )
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        # Every namespace bears its name as this label.
        if not _selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace}):
            return False
    elif other.namespace != namespace:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert not selector.get("matchExpressions"), "not needed so far"
    return (selector.get("matchLabels") or {}).items() <= labels.items()
