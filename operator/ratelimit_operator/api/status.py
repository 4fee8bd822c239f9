"""Status of our objects; the CRDs' status schemas are made from these, as the specs' are from the policy model."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ratelimit_operator.api.conditions import Condition

Generation = Annotated[int, Meta(ge=0, le=1 << 62)]
"""`metadata.generation` of an object."""

ReplicaCount = Annotated[int, Meta(ge=0, le=1_000_000)]
"""A number of replicas of the service."""

Conditions = Annotated[tuple[Condition, ...], Meta(max_length=16, extra={"map_key": "type"})]
"""Conditions, unique by type."""

Name = Annotated[str, Meta(max_length=253)]
"""Name of an object."""


class _Model(msgspec.Struct, frozen=True, rename="camel"):
    """Base of all parts of a status: immutable, camelCase on the wire."""


class AncestorRef(_Model, frozen=True, kw_only=True):
    """A Gateway API object that a policy attaches to."""

    group: Annotated[Name, Meta(description="API group of the object")] = "gateway.networking.k8s.io"
    kind: Annotated[Annotated[str, Meta(min_length=1, max_length=63)], Meta(description="Kind of the object")]
    namespace: Annotated[Annotated[str, Meta(max_length=63)] | None, Meta(description="Namespace of the object")] = None
    name: Annotated[Annotated[str, Meta(min_length=1, max_length=253)], Meta(description="Name of the object")]
    section_name: Annotated[Name | None, Meta(description="Section of the object that is meant")] = None


class Ancestor(_Model, frozen=True, kw_only=True):
    """What became of a policy at one target (Gateway API's PolicyAncestorStatus)."""

    ancestor_ref: Annotated[AncestorRef, Meta(description="The target")]
    controller_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)], Meta(description="The controller that says so")
    ]
    conditions: Annotated[Conditions, Meta(description="What it says of this target")] = ()


class DistributionStatus(_Model, frozen=True, kw_only=True):
    """How far the policy's live form has come."""

    generation: Annotated[Generation, Meta(description="Generation of the object whose form is live; 0: none is")] = 0
    version: Annotated[
        Annotated[str, Meta(max_length=64)],
        Meta(description="Hash of the policy's own compiled form; an edit elsewhere leaves it as it is"),
    ] = ""
    acked: Annotated[ReplicaCount, Meta(description="Replicas that have acknowledged this very version")] = 0
    total: Annotated[
        ReplicaCount, Meta(description="Replicas that should run it: ready endpoints and connected nodes together")
    ] = 0
    summary: Annotated[Annotated[str, Meta(max_length=32)], Meta(description="`acked/total`, for people")] = ""
    last_error: Annotated[
        Annotated[str, Meta(max_length=1024)] | None, Meta(description="Why a replica refused a form of it last")
    ] = None


class EffectiveStatus(_Model, frozen=True, kw_only=True):
    """What of the policy is in force."""

    domain: Annotated[Annotated[str, Meta(max_length=253)], Meta(description="Domain that its rules are in")] = ""
    rule_count: Annotated[
        int, Meta(ge=0, le=64, description="Rules in force; those that others override are not counted")
    ] = 0
    overridden_by: Annotated[
        tuple[Annotated[str, Meta(max_length=512)], ...],
        Meta(max_length=8, description="`rule: namespace/policy` of each rule that another policy's rule overrides"),
    ] = ()


class RateLimitPolicyStatus(_Model, frozen=True, kw_only=True):
    """What the operator says of a policy; it is written by nobody else."""

    observed_generation: Annotated[Generation, Meta(description="Generation that the status is about")] = 0
    conditions: Annotated[
        Conditions, Meta(description="Accepted, ResolvedRefs, Attached (targeted policies), Programmed, Ready")
    ] = ()
    distribution: Annotated[DistributionStatus | None, Meta(description="How far its live form has come")] = None
    effective: Annotated[EffectiveStatus | None, Meta(description="What of it is in force")] = None
    ancestors: Annotated[
        tuple[Ancestor, ...], Meta(max_length=16, description="What became of it at each of its targets")
    ] = ()


class ProfileCopyStatus(_Model, frozen=True, kw_only=True):
    """The profile as a ConfigMap, for programs that use the library."""

    name: Annotated[Name, Meta(description="Its name, in the profile's namespace; the key is `profile.yaml`")] = ""
    version: Annotated[
        Annotated[str, Meta(max_length=64)], Meta(description="Hash of what was written last; empty: nothing yet")
    ] = ""
    last_error: Annotated[
        Annotated[str, Meta(max_length=1024)] | None, Meta(description="Why the newest version is not written")
    ] = None


class CacheProfileStatus(_Model, frozen=True, kw_only=True):
    """What the operator says of a profile; it is written by nobody else."""

    observed_generation: Annotated[Generation, Meta(description="Generation that the status is about")] = 0
    conditions: Annotated[Conditions, Meta(description="Accepted, ResolvedRefs, Ready")] = ()
    used_by: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Policies whose hits are counted in it, the default's included")
    ] = 0
    config_map: Annotated[
        ProfileCopyStatus | None,
        Meta(description="The profile as a ConfigMap for programs; absent where the operator writes none"),
    ] = None
