"""What a snapshot keeps of a CacheProfile."""

from __future__ import annotations

import msgspec

from ratelimit_service.policy.profile_model import Leases, StoreSpec


class Backend(msgspec.Struct, frozen=True):
    """Where the hits of a profile are counted, as its manifest says.

    Attributes:
        namespace: Of the profile; its secrets are there.
        store: What counts.
        leases: How replicas take in advance.
    """

    namespace: str
    store: StoreSpec
    leases: Leases
