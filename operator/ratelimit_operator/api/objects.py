"""Objects of the API server as typed views: the same decoder as for files, and what their status says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ratelimit_operator.api.status import CacheProfileStatus, RateLimitPolicyStatus
from ratelimit_operator.plan.world import Observed, ObservedPolicy, ObservedProfile
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.profile_model import CacheProfile

MANAGER: Final = "tidegate-operator"
"""Begin of the field manager's name of every release; the controller's name follows after a slash."""

Body = Mapping[str, Any]
"""An object as JSON-like values; what is not checked here is the API server's to vouch for."""


def observe_policy(body: Body, before: ObservedPolicy | None = None) -> ObservedPolicy:
    """A RateLimitPolicy; `before`: as it was seen last, whose spec is not decoded again where it is the same."""
    known = _known(body, before)
    manifest, problems = (known.manifest, known.problems) if known is not None else _decode(body)
    return Observed(
        **_identity(body),
        manifest=manifest if isinstance(manifest, RateLimitPolicy) else None,
        problems=problems,
        status=_status(body, RateLimitPolicyStatus),
    )


def observe_profile(body: Body, before: ObservedProfile | None = None) -> ObservedProfile:
    """A CacheProfile; `before`: as it was seen last, whose spec is not decoded again where it is the same."""
    known = _known(body, before)
    manifest, problems = (known.manifest, known.problems) if known is not None else _decode(body)
    return Observed(
        **_identity(body),
        manifest=manifest if isinstance(manifest, CacheProfile) else None,
        problems=problems,
        status=_status(body, CacheProfileStatus),
    )


def _identity(body: Body) -> dict[str, Any]:
    metadata = body["metadata"]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "created": metadata.get("creationTimestamp") or "",
        "generation": metadata.get("generation") or 0,
        "resource_version": metadata["resourceVersion"],
        "writers": tuple(
            (each["manager"], each.get("time", ""))
            for each in metadata.get("managedFields") or ()
            if each.get("manager", "").startswith(f"{MANAGER}/")
        ),
    }


def _known(body: Body, before: Any) -> Any:
    """The earlier view, if its spec is this one."""
    metadata = body["metadata"]
    if before is None or (before.uid, before.generation) != (metadata["uid"], metadata.get("generation")):
        return None
    return before


def _decode(body: Body) -> tuple[RateLimitPolicy | CacheProfile | None, tuple[str, ...]]:
    """The manifest, and why there is none."""
    metadata = body["metadata"]
    read = {
        "apiVersion": body.get("apiVersion"),
        "kind": body.get("kind"),
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "creationTimestamp": metadata.get("creationTimestamp"),
        },
        "spec": body.get("spec"),
    }
    manifest, problems = decode_manifest(read)
    told = tuple(f"{each.path}: {each.message}" if each.path else each.message for each in problems)
    return (None if told else manifest), told


def _status(body: Body, kind: type[Any]) -> Any:
    """What status says; one that cannot be read counts as empty and is written anew."""
    try:
        return msgspec.convert(body.get("status") or {}, kind)
    except msgspec.ValidationError:
        return kind()
