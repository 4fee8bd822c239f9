"""The compiled form of policies: what the limiter reads on every request. Immutable once built.

`policy.compile` builds it from both formats (our manifests, envoyproxy/ratelimit YAML); nothing else does.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ratelimit_service.algorithms.limit import FailureMode, Limit, LimitSettings

if TYPE_CHECKING:
    # The model of manifests builds on this module.
    from ratelimit_service.policy.backend import Backend


class Action(enum.Enum):
    """What a matched rule does."""

    LIMIT = "Limit"
    ALLOW = "Allow"
    DENY = "Deny"


class HeaderStyle(enum.Enum):
    """Response headers that a policy asks for."""

    OFF = "Off"
    RATE_LIMIT_FIELDS = "RateLimitFields"
    LEGACY_FIELDS = "LegacyFields"


class LabelMode(enum.Enum):
    """How much of a matched descriptor the `rule` label of metrics shows."""

    RULE = "Rule"
    KEY = "Key"
    KEY_VALUE = "KeyValue"


class RuleLimit(msgspec.Struct, frozen=True):
    """A limit with its counter's identity (`policy.identity.limit_id`)."""

    identity: bytes
    limit: Limit


class Rollout(msgspec.Struct, frozen=True):
    """A limit on its way in.

    Attributes:
        percent: 0 to 100; keys whose stable hash is under it are on the new side.
        limits: What judges the new side; empty: the rule itself is being introduced, the rest is shadow.
    """

    percent: int
    limits: tuple[RuleLimit, ...]


class Rule(msgspec.Struct, frozen=True):
    """A compiled rule: what one descriptor that reaches its leaf is charged.

    Attributes:
        domain: Its domain.
        name: Manifests: the rule's name. YAML: the path of `key_value` joined by dots. The `rule` label.
        limit_name: `current_limit.name`: manifests the rule's name, YAML its `name`, else empty.
        action: LIMIT has limits; ALLOW is upstream's `unlimited`.
        limits: Limits that must all fit.
        shadow: Counts and reports, never rejects.
        quota: Upstream's `quota_mode`.
        count_denied: Charged in full past its limit (DECISIONS 3).
        refunds: Negative hits are applied (DECISIONS 4).
        replaces: Qualified names of rules whose charge this one lifts.
        replaced_by: Qualified name under which others may replace this one, empty: none can.
        rollout: A limit on its way in, or None.
        failure: What decides while the store is away.
        headers: Response headers that the policy asks for.
        shared: Per entry of the chain, the bytes that are counted in place of the request's value
            (a shared Prefix bucket, `share_threshold`), None: the value itself.
        labels: What its metrics show beyond the rule.
        max_series: Cap of its metrics' value series.
        value_labels: Per entry, True: its value joins the `rule` label (`value_to_metric`); KEY_VALUE sets all.
        metadata: Merged into the response's dynamic metadata when asked for, None: none.
        origin: Where it is written (`shop.yaml:12`), for explain and problems.
        policy: `<namespace>/<name>` of its manifest, empty for YAML.
    """

    domain: str
    name: str
    action: Action
    limits: tuple[RuleLimit, ...] = ()
    limit_name: str = ""
    shadow: bool = False
    quota: bool = False
    count_denied: bool = False
    refunds: bool = False
    replaces: frozenset[str] = frozenset()
    replaced_by: str = ""
    rollout: Rollout | None = None
    failure: FailureMode = FailureMode.SHARE
    headers: HeaderStyle = HeaderStyle.OFF
    shared: tuple[bytes | None, ...] = ()
    labels: LabelMode = LabelMode.RULE
    max_series: int = 100
    value_labels: tuple[bool, ...] = ()
    metadata: Mapping[str, object] | None = None
    origin: str = ""
    policy: str = ""


class Pattern(msgspec.Struct, frozen=True):
    """A value pattern: literal parts with `*` between them (`b"a*c"` → `(b"a", b"c")`), and where it leads."""

    text: bytes
    parts: tuple[bytes, ...]
    node: Node


class Node(msgspec.Struct):
    """One level of a domain's tree. Tried in order: `exact`, `patterns` (first match), `bare`. No backtracking.

    Attributes:
        exact: key → value → node.
        patterns: key → patterns in config order.
        bare: key → node, for any value, the empty one included.
        rule: What a descriptor that ends here is charged; None: no limit (an explicit pass).
    """

    exact: dict[bytes, dict[bytes, Node]] = {}
    patterns: dict[bytes, tuple[Pattern, ...]] = {}
    bare: dict[bytes, Node] = {}
    rule: Rule | None = None


class Domain(msgspec.Struct, frozen=True):
    """One domain's compiled tree.

    Attributes:
        name: As Envoy sends it.
        profile: CacheProfile that its counts live in (`<namespace>/<name>`), empty: the service's own store.
        root: The tree.
        rules: Every rule, in config order.
        failure: Failure mode of what has no rule (overrides).
        headers: Style of what has no rule.
    """

    name: str
    profile: str
    root: Node
    rules: tuple[Rule, ...]
    failure: FailureMode = FailureMode.SHARE
    headers: HeaderStyle = HeaderStyle.OFF


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that is in force.

    Attributes:
        version: Content hash, 16 hex digits: same policies, same version, on every machine.
        domains: By the bytes that Envoy sends.
        limits: Every limit by identity and profile: profile → identity → settings; handed to `Store.apply`.
        backends: By profile, where its hits are counted.
        shadow: The kill switch is thrown: everything counts and reports, nothing rejects (DECISIONS 50).
        rule_count: Rules of all domains, which nobody has to go through thousands of domains for.
    """

    version: str
    domains: Mapping[bytes, Domain]
    limits: Mapping[str, Mapping[bytes, LimitSettings]]
    backends: Mapping[str, Backend] = {}
    shadow: bool = False
    rule_count: int = 0
