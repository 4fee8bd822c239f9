"""Which profiles are live, and which one is the default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ratelimit_operator.api.conditions import ConditionType, Reason, Verdict, failing, holding
from ratelimit_operator.plan.live import LiveForm, continues, live_form
from ratelimit_operator.plan.tenancy import profile_refusal
from ratelimit_operator.plan.world import ObservedProfile, World
from ratelimit_service.policy.profile_model import CacheProfile, CacheProfileSpec


class ProfilePlan(msgspec.Struct, frozen=True):
    """What becomes of one profile.

    Attributes:
        uid: Of the object.
        generation: Of the spec that was judged.
        accepted: Whether its present spec is valid and allowed.
        refs: Whether its secrets are there.
        live: The form that the service may use, None: none.
    """

    uid: str
    generation: int
    accepted: Verdict
    refs: Verdict
    live: LiveForm | None

    def is_of(self, uid: str, generation: int) -> bool:
        """Whether this was decided about that spec of that object."""
        return self.generation == generation and self.uid == uid


def plan_profiles(world: World, before: Mapping[str, LiveForm]) -> dict[str, ProfilePlan]:
    """Every observed profile's plan, oldest first: the older of two defaults is the default."""
    plans: dict[str, ProfilePlan] = {}
    default = ""
    for profile in sorted(world.profiles.values(), key=lambda each: (each.created, each.key)):
        refusal = _refusal(profile, world, default)
        earlier = before.get(profile.key)
        if earlier is not None and not continues(earlier, profile.created):
            earlier = None
        accepted = refusal or holding(ConditionType.ACCEPTED)
        refs = _refs(profile, world)
        manifest = profile.manifest
        if refusal is None and refs.holds and manifest is not None:
            live: LiveForm | None = live_form(manifest, manifest, profile.generation, earlier)
        else:
            live = None if earlier is None else _held(earlier, default)
        if live is not None and isinstance(live.sent, CacheProfile) and live.sent.spec.default:
            default = profile.key
        plans[profile.key] = ProfilePlan(profile.uid, profile.generation, accepted, refs, live)
    return plans


def _refusal(profile: ObservedProfile, world: World, default: str) -> Verdict | None:
    if profile.manifest is None:
        return failing(ConditionType.ACCEPTED, Reason.INVALID, "; ".join(profile.problems))
    refused = profile_refusal(profile.manifest, world)
    if refused is not None:
        return failing(ConditionType.ACCEPTED, Reason.NOT_ALLOWED, refused)
    if profile.manifest.spec.default and default:
        message = f"spec.default: the older CacheProfile {default} is the default; only one may be"
        return failing(ConditionType.ACCEPTED, Reason.CONFLICTED, message)
    return None


def without_default(form: LiveForm) -> LiveForm:
    """A form that stays live, but not as the default."""
    manifest = form.manifest
    assert isinstance(manifest, CacheProfile)
    spec = msgspec.structs.replace(manifest.spec, default=False)
    return live_form(manifest, msgspec.structs.replace(manifest, spec=spec), form.generation, form)


def _held(form: LiveForm, default: str) -> LiveForm:
    """A form that stays live; it goes on being the default unless an older profile is."""
    return without_default(form) if default else live_form(form.manifest, form.manifest, form.generation, form)


def _refs(profile: ObservedProfile, world: World) -> Verdict:
    spec = profile.manifest.spec if profile.manifest is not None else CacheProfileSpec()
    missing = sorted(
        {name for name in _secrets(spec) if f"{profile.namespace}/{name}" not in world.scope.secret_mounts}
    )
    if missing:
        message = (
            f"the service has no secret {', '.join(f'{profile.namespace}/{name}' for name in missing)} mounted; "
            "add it to the chart's secretMounts"
        )
        return failing(ConditionType.RESOLVED_REFS, Reason.SECRET_NOT_MOUNTED, message)
    return holding(ConditionType.RESOLVED_REFS)


def _secrets(spec: CacheProfileSpec) -> Iterator[str]:
    """Names of the secrets that the service needs for the profile's store."""
    store = spec.store
    if store.auth is not None:
        yield store.auth.secret_ref.name
    if store.tls is not None:
        yield from (ref.name for ref in (store.tls.ca_ref, store.tls.client_cert_ref) if ref is not None)
