"""Forms that are live: the last accepted one of each object, which stays until a newer one is accepted."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ratelimit_operator.plan.distribution import Distribution, Resource, ResourceKind, resource_of
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.profile_model import CacheProfile


class LiveForm(msgspec.Struct, frozen=True):
    """An accepted form of an object.

    Attributes:
        manifest: What its author wrote.
        sent: What the service is given; it differs where an older policy decides the domain's profile, or another
            profile is the default.
        generation: Generation of the object that it was, 0: it comes from a snapshot and is not known.
        resource: How it travels.
    """

    manifest: RateLimitPolicy | CacheProfile
    sent: RateLimitPolicy | CacheProfile
    generation: int
    resource: Resource


class Live(msgspec.Struct, frozen=True):
    """All live forms, by `<namespace>/<name>`."""

    policies: Mapping[str, LiveForm] = {}
    profiles: Mapping[str, LiveForm] = {}


def live_form(
    manifest: RateLimitPolicy | CacheProfile,
    sent: RateLimitPolicy | CacheProfile,
    generation: int,
    before: LiveForm | None,
) -> LiveForm:
    """A form; what was made before is used again where nothing has changed, so its bytes are made once."""
    if before is not None and before.sent == sent:
        if before.generation == generation and before.manifest == manifest:
            return before
        return LiveForm(manifest, before.sent, generation, before.resource)
    return LiveForm(manifest, sent, generation, resource_of(sent))


def continues(form: LiveForm, created: str) -> bool:
    """Whether an object is the one that this form was of, and not another of the same name."""
    return (form.manifest.metadata.creation_timestamp or "") == created


def live_of(distribution: Distribution) -> Live:
    """The forms in a distribution that was kept: what this process, or an earlier one, had accepted.

    Their generations are not in it. One that this version can no longer read is left out.
    """
    policies: dict[str, LiveForm] = {}
    profiles: dict[str, LiveForm] = {}
    for identity, resource in distribution.resources.items():
        if identity.kind == ResourceKind.SETTINGS.value:
            continue
        manifest, problems = decode_manifest(msgspec.json.decode(resource.body))
        if manifest is None or problems:
            continue
        forms = policies if isinstance(manifest, RateLimitPolicy) else profiles
        forms[identity.name] = LiveForm(manifest, manifest, 0, resource)
    return Live(policies, profiles)


def dated(form: LiveForm, generation: int, version: str) -> LiveForm:
    """A form from a snapshot with the generation that the object's status names for this very version."""
    if form.generation or form.resource.version != version:
        return form
    return LiveForm(form.manifest, form.sent, generation, form.resource)
