"""What a cluster holds for rendering: read by the operator's package, used by the command line."""

from __future__ import annotations

from typing import Final

import msgspec

from ratelimit_service.errors import TidegateError
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.targets.topology import Topology

READERS: Final = "tidegate.clusters"
"""Entry-point group of what reads a cluster: `manifests` takes a kubeconfig's path, empty: the usual, gives `Held`."""


class NotReadable(TidegateError):
    """A cluster cannot be read; the message says why."""


class Held(msgspec.Struct, frozen=True):
    """What the API server holds.

    Attributes:
        policies: Those that are valid and that their namespace may write.
        topology: Gateways, routes, and the labels of namespaces.
        platforms: Namespaces that may do what tenants may not.
        passed_over: A sentence for each other policy: an operator would keep its last accepted form.
    """

    policies: tuple[RateLimitPolicy, ...]
    topology: Topology
    platforms: frozenset[str]
    passed_over: tuple[str, ...]
