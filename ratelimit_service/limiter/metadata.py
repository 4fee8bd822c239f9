"""`dynamic_metadata` of a response, as envoyproxy/ratelimit writes it.

Source: src/service/ratelimit.go of that project, ratelimitToMetadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratelimit_service.limiter.plan import Kind, Plan
from ratelimit_service.wire.rls.messages import Descriptor, Request, Status, Unit


def dynamic_metadata(request: Request, plan: Plan, statuses: Sequence[Status]) -> dict[str, object]:
    """The request as it was understood, and the merged `metadata` of the rules that passed."""
    metadata: dict[str, object] = {
        "domain": _text(request.domain),
        "descriptors": [_descriptor(descriptor) for descriptor in request.descriptors],
    }
    if request.hits_addend:
        metadata["hitsAddend"] = request.hits_addend
    merged: dict[str, object] = {}
    for part, status in zip(plan.parts, statuses, strict=True):
        is_lifted = part.kind is Kind.REPLACED
        if part.rule is not None and part.rule.metadata and not status.over and not is_lifted:
            _merge(merged, part.rule.metadata)
    if merged:
        metadata["metadata"] = merged
    return metadata


def _descriptor(descriptor: Descriptor) -> dict[str, object]:
    shown: dict[str, object] = {"entries": [f"{_text(key)}={_text(value)}" for key, value in descriptor.entries]}
    override = descriptor.override
    if override is not None:
        shown["limit"] = f"requests_per_unit:{override.requests} unit:{Unit(override.unit).name}"
    if descriptor.hits is not None:
        shown["hitsAddend"] = descriptor.hits
    return shown


def _merge(into: dict[str, object], values: Mapping[str, object]) -> None:
    """Add what is not there yet; the first value wins, maps are merged deeply. Rules' own maps are not touched."""
    for name, value in values.items():
        held = into.get(name)
        if isinstance(value, Mapping):
            if name not in into:
                held = into[name] = {}
            if isinstance(held, dict):
                _merge(held, value)
        elif name not in into:
            into[name] = value


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
