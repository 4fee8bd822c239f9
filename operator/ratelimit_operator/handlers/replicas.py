"""What the control loop asks of the xDS server (`xds.server.XdsServer`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ratelimit_operator.plan.distribution import Distribution, ResourceId


class Distributor(Protocol):
    """Gives distributions to the replicas and tells what they say."""

    def publish(self, distribution: Distribution, *, confirmed: bool = False) -> bool:
        """Give out a set; False: it is held back because it would lose most policies; `confirmed` gives it out."""

    def seed(self, distribution: Distribution) -> None:
        """Take what replicas accepted before this process began."""

    def expect(self, nodes: Iterable[str]) -> None:
        """Name the replicas that there should be."""

    def serve(self, serving: bool) -> None:
        """Answer streams, or refuse them."""

    def acked(self) -> Mapping[ResourceId, int]:
        """Resource → replicas that run its published version."""

    def acked_of(self, identity: ResourceId) -> int:
        """Replicas that run the published version of one resource."""

    def nodes(self) -> Mapping[str, Any]:
        """Connected replicas by name."""

    def quarantined(self) -> Mapping[ResourceId, str]:
        """Resource → why its published version is refused."""
