"""One resource of a response, decoded: a policy, a profile, the settings, or a domain of envoyproxy/ratelimit's."""

from __future__ import annotations

from typing import Final

import msgspec

from ratelimit_service.policy.decode import PolicyObject, decode_config, decode_manifest
from ratelimit_service.policy.features import KNOWN_FEATURES
from ratelimit_service.policy.manifest_compile import domain_of
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.profile_model import CacheProfile
from ratelimit_service.policy.upstream_model import UpstreamConfig
from ratelimit_service.wire.protobuf import MalformedMessage
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE
from ratelimit_service.wire.xds.rate_limit_config import decode_config as decode_message
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, Refusal, WireResource, decode_any, decode_resource

_OBJECTS: Final = {"Policy": "RateLimitPolicy", "Profile": "CacheProfile"}
"""Kind of a resource → kind of its manifest."""
_SETTINGS: Final = "Settings"
_UPSTREAM: Final = "RateLimitConfig"
_ENFORCEMENTS: Final = {"Enforce": False, "Shadow": True}


class Entry(msgspec.Struct, frozen=True):
    """A resource that can be compiled.

    Attributes:
        kind, name, version: As it came; the version of upstream's resources is empty.
        label: What problems call it: `RateLimitPolicy shop/checkout`.
        item: The policy, profile or domain, None: the settings.
        shadow: Of the settings: nothing is to be rejected.
    """

    kind: str
    name: str
    version: str
    label: str
    item: PolicyObject | None
    shadow: bool = False

    @property
    def domain(self) -> str | None:
        """The domain that it has rules for, None: none, as a profile."""
        if isinstance(self.item, RateLimitPolicy):
            return domain_of(self.item)
        return self.item.domain if isinstance(self.item, UpstreamConfig) else None

    @property
    def is_profile(self) -> bool:
        """Whether domains may depend on it."""
        return isinstance(self.item, CacheProfile)

    def refusal(self, problem: Problem) -> Refusal:
        """A problem of this resource, as a NACK names it."""
        return Refusal(self.kind, self.name, self.version, problem.path, problem.message)


def read_entry(type_url: str, packed: bytes) -> Entry | list[Refusal]:
    """Decode a `google.protobuf.Any` of the type that was asked for; a list: everything that is wrong with it."""
    try:
        found = decode_any(packed)
        if found.type_url != type_url:
            return [Refusal("", "", message=f"a resource of type {found.type_url}, not {type_url}")]
        if type_url == RATE_LIMIT_CONFIG_TYPE:
            return _read_upstream(found.value)
        assert type_url == RESOURCE_TYPE
        return _read_own(decode_resource(found.value))
    except MalformedMessage as error:
        return [Refusal("", "", message=f"no resource: {error}")]


def _read_own(resource: WireResource) -> Entry | list[Refusal]:
    unknown = sorted(set(resource.required_features) - KNOWN_FEATURES)
    label = f"{_OBJECTS.get(resource.kind, resource.kind)} {resource.name}"
    entry = Entry(resource.kind, resource.name, resource.version, label, None)
    if unknown:
        message = f"needs {', '.join(unknown)}, which this version of the service does not know; update it"
        return [entry.refusal(Problem(label, "", message))]
    if resource.kind not in (*_OBJECTS, _SETTINGS):
        return [entry.refusal(Problem(label, "", f"kind {resource.kind!r} is unknown to this version of the service"))]
    try:
        value = msgspec.json.decode(resource.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return [entry.refusal(Problem(label, "", f"its body is no JSON: {error}"))]
    if resource.kind == _SETTINGS:
        enforcement = value.get("enforcement") if isinstance(value, dict) else None
        if enforcement not in _ENFORCEMENTS:
            message = f"{enforcement!r} is neither Enforce nor Shadow"
            return [entry.refusal(Problem(label, "enforcement", message))]
        return msgspec.structs.replace(entry, shadow=_ENFORCEMENTS[enforcement])
    manifest, problems = decode_manifest(value, label)
    if manifest is None or type(manifest).__name__ != _OBJECTS[resource.kind]:
        problems = problems or [Problem(label, "kind", f"is not a {_OBJECTS[resource.kind]}")]
        return [entry.refusal(problem) for problem in problems]
    return msgspec.structs.replace(entry, item=manifest)


def _read_upstream(body: bytes) -> Entry | list[Refusal]:
    name, value = decode_message(body)
    entry = Entry(_UPSTREAM, name, "", f"{_UPSTREAM} {name}", None)
    config, problems = decode_config(value, entry.label)
    if config is None:
        return [entry.refusal(problem) for problem in problems]
    return msgspec.structs.replace(entry, item=config)
