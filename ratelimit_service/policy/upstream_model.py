"""The YAML of envoyproxy/ratelimit as typed values; `upstream` decodes it.

Format: https://github.com/envoyproxy/ratelimit#configuration, loaded there by `src/config/config_impl.go`.
Every field has upstream's name and default; the empty string means "not written" as it does there.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from ratelimit_service.policy.origin import Origin


class UpstreamUnit(enum.Enum):
    """Window of an upstream limit. Written in any case; months have 30 days and years 365 (DECISIONS 9)."""

    SECOND = 1
    MINUTE = 60
    HOUR = 3_600
    DAY = 86_400
    WEEK = 604_800
    MONTH = 2_592_000
    YEAR = 31_536_000

    @property
    def window_us(self) -> int:
        """Length in microseconds."""
        return self.value * 1_000_000


class UpstreamRateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A descriptor's `rate_limit`.

    Attributes:
        requests_per_unit: 0 to 4294967295; 0 is always over.
        unit: None exactly when `unlimited`.
        unlimited: No limit; its `replaces` still apply.
        name: Name under which others replace it, empty: none can.
        replaces: Names of the limits that it lifts.
    """

    requests_per_unit: int = 0
    unit: UpstreamUnit | None = None
    unlimited: bool = False
    name: str = ""
    replaces: tuple[str, ...] = ()


class UpstreamDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """One level of the tree.

    Attributes:
        key: Key of the entry, never empty.
        value: Value of the entry, `*` in it matches anything; empty: every value, the empty one included.
        rate_limit: What a descriptor that ends here is charged; None: nothing.
        descriptors: The next level.
        shadow_mode: The limit counts and never rejects.
        quota_mode: Over only when every quota descriptor of the request is.
        detailed_metric: Every entry's value joins the metric's name.
        value_to_metric: This entry's value joins the metric's name.
        share_threshold: All values that match a wildcard share one counter.
        metadata: Merged into the response's dynamic metadata, None: none. JSON values only.
        path: Where it is written, such as `descriptors[0].descriptors[1]`.
    """

    key: str
    value: str = ""
    rate_limit: UpstreamRateLimit | None = None
    descriptors: tuple[UpstreamDescriptor, ...] = ()
    shadow_mode: bool = False
    quota_mode: bool = False
    detailed_metric: bool = False
    value_to_metric: bool = False
    share_threshold: bool = False
    metadata: Mapping[str, object] | None = None
    path: str = ""


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One document of upstream's YAML.

    Attributes:
        domain: As Envoy sends it, never empty.
        descriptors: First level of the tree.
        origin: Where it is written.
    """

    domain: str
    descriptors: tuple[UpstreamDescriptor, ...] = ()
    origin: Origin = Origin()
