"""Sets that every replica ran, kept to go back to: their names, which of them stay, and what is given out meanwhile.

Pure. A rollback is asked for by key `rollback` of the release's settings: the kept set of that version is given out,
whatever is applied, until the key is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ratelimit_operator.plan.distribution import (
    Distribution,
    Resource,
    ResourceId,
    ResourceKind,
    distribution_of,
)

HISTORY_LABEL: Final = "tidegate.dev/history"
"""Label of kept sets' ConfigMaps; its value is the set's version."""

OWNER_LABEL: Final = "tidegate.dev/history-of"
"""Label of them, too; its value is the release's controller name."""

KEPT_LABEL: Final = "tidegate.dev/kept-at"
"""And this is when the set was kept, as `kept_at_text` writes it."""


class KeptSet(msgspec.Struct, frozen=True, order=True):
    """A set that can be gone back to.

    Attributes:
        kept_at: When it was kept, as `20260131T235959Z`; such texts sort by time.
        version: Of its distribution.
        names: Its ConfigMaps, in the order of its parts.
    """

    kept_at: str
    version: str
    names: tuple[str, ...] = ()


def part_name(version: str, part: int) -> str:
    """Name of the ConfigMap with a part of a kept set."""
    return f"tidegate-history-{version}-{part}"


def kept_sets(config_maps: Iterable[tuple[str, Mapping[str, str]]]) -> list[KeptSet]:
    """The kept sets out of names and labels of ConfigMaps, oldest first; what is not one is left out."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, labels in config_maps:
        version, kept_at = labels.get(HISTORY_LABEL), labels.get(KEPT_LABEL)
        if version and kept_at:
            names.setdefault((kept_at, version), []).append(name)
    return sorted(KeptSet(kept_at, version, tuple(sorted(parts))) for (kept_at, version), parts in names.items())


def outdated(kept: Iterable[KeptSet], most: int, in_use: str) -> list[KeptSet]:
    """The sets that are to be removed: all but the newest, and but the one that is given out again."""
    ordered = sorted(kept)
    return [each for each in ordered[: max(0, len(ordered) - most)] if each.version != in_use]


def gone_back(kept: Distribution, planned: Distribution) -> Distribution:
    """A kept set as it is given out: the switches of the release are as they are now."""
    own = [each for each in kept.resources.values() if each.id.kind != ResourceKind.SETTINGS.value]
    switches = [each for each in planned.resources.values() if each.id.kind == ResourceKind.SETTINGS.value]
    return distribution_of([*own, *switches])


def withheld(planned: Distribution, given: Distribution, version: str) -> dict[ResourceId, str]:
    """What is planned and not given out because of a rollback, and why."""
    if planned.version == given.version:
        return {}
    held: dict[ResourceId, str] = {}
    for identity, resource in planned.resources.items():
        other: Resource | None = given.resources.get(identity)
        if other is None or other.version != resource.version:
            runs = "do not have it" if other is None else f"run its form {other.version}"
            held[identity] = (
                f"rolled back to set {version}: replicas {runs} until `rollback` is removed from ConfigMap "
                "tidegate-settings (`tidegate rollback --end`)"
            )
    return held
