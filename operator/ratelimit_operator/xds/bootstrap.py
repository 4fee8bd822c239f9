"""What a replica starts from while no operator answers (DECISIONS 49): a distribution as contents of ConfigMaps.

`binaryData` of ConfigMap `tidegate-bootstrap-<n>` holds part n under the key `part_key(n)`. All of them are projected
into one folder, which the service reads at its start (`--xds-bootstrap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ratelimit_operator.plan.distribution import Distribution, Resource, ResourceId, distribution_of
from ratelimit_operator.xds.forms import form_of, version_of
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, decode_any, decode_resource
from ratelimit_service.wire.xds.snapshot_part import PART_SUFFIX, StoredSet, decode_parts, encode_parts

BOOTSTRAP_PARTS: Final = 8
"""ConfigMaps that there are names for."""

BOOTSTRAP_PART_BYTES: Final = 700 * 1024
"""Longest part: base64 makes it a third longer, and a ConfigMap holds 1 MiB."""


def part_key(part: int) -> str:
    """Key of a part in its ConfigMap, which becomes its file's name."""
    return f"{part}{PART_SUFFIX}"


def bootstrap_parts(distribution: Distribution, compiled_at_us: int) -> list[bytes]:
    """The contents of the ConfigMaps, from part 0 on; those beyond are to be emptied or removed.

    The same arguments give the same bytes. Hold `compiled_at_us` (microseconds since 1970) as long as the distribution
    stays the same, so that nothing is written for nothing.

    Raises:
        SnapshotTooLarge: It does not fit; the last good parts are to stay.
    """
    forms = {str(identity): form_of(resource) for identity, resource in distribution.resources.items()}
    # The version of a response with the same content: a replica that starts from it is not sent it again.
    stored = StoredSet(version_of(forms), compiled_at_us, RESOURCE_TYPE, tuple(form.packed for form in forms.values()))
    return encode_parts(stored, most_bytes=BOOTSTRAP_PART_BYTES, most_parts=BOOTSTRAP_PARTS)


def distribution_in(contents: Sequence[bytes]) -> tuple[Distribution | None, Sequence[str]]:
    """The distribution in parts, None: there is no whole one; and what is wrong with them."""
    stored, problems = decode_parts(contents)
    if stored is None:
        return None, problems
    resources = []
    for packed in stored.resources:
        wire = decode_resource(decode_any(packed).value)
        resources.append(Resource(ResourceId(wire.kind, wire.name), wire.version, wire.body, wire.required_features))
    return distribution_of(resources), problems
