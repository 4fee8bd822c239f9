"""What applying a policy would change, rule by rule.

Compared are the forms of `policy.encode`, so that what is left out and what has its default are the same.
Law (tests/properties/operator/test_differences.py): nothing is told if and only if both forms are the same.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ratelimit_service.policy.encode import encode
from ratelimit_service.policy.model import RateLimitPolicy

_RULE_LISTS = (("rules",), ("defaults", "rules"), ("overrides", "rules"))


class Kind(enum.Enum):
    """What becomes of a policy, a rule or a field."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class FieldChange(msgspec.Struct, frozen=True):
    """One field.

    Attributes:
        path: Below the rule, or below `spec`.
        before: Its value now, None: it is not written.
        after: Its value then, None: it is not written.
    """

    path: str
    before: object
    after: object


class RuleChange(msgspec.Struct, frozen=True):
    """One rule.

    Attributes:
        name: Its name.
        kind: What becomes of it.
        fields: What changes in it; empty where it is added or removed.
        counts_anew: Whether hits that were counted so far no longer count: another algorithm, window, calendar or key
            is another counter, other requests, burst or mode are not (DECISIONS 8).
    """

    name: str
    kind: Kind
    fields: tuple[FieldChange, ...] = ()
    counts_anew: bool = False


class PolicyChange(msgspec.Struct, frozen=True):
    """One policy.

    Attributes:
        key: `<namespace>/<name>`.
        kind: What becomes of it.
        fields: What changes beside its rules.
        rules: Its rules that change, in the order of the new form, removed ones last.
    """

    key: str
    kind: Kind
    fields: tuple[FieldChange, ...]
    rules: tuple[RuleChange, ...]


def policy_change(now: RateLimitPolicy | None, then: RateLimitPolicy) -> PolicyChange | None:
    """What applying `then` would change of `now` (None: there is none), None: nothing."""
    key = f"{then.metadata.namespace}/{then.metadata.name}"
    after = _spec(then)
    if now is None:
        rules = tuple(RuleChange(name, Kind.ADDED) for name in _rules(after))
        return PolicyChange(key, Kind.ADDED, (), rules)
    before = _spec(now)
    fields = tuple(_differences(_beside_rules(before), _beside_rules(after)))
    changed = tuple(_rule_changes(_rules(before), _rules(after)))
    return PolicyChange(key, Kind.CHANGED, fields, changed) if fields or changed else None


def _spec(policy: RateLimitPolicy) -> Mapping[str, object]:
    spec = encode(policy)["spec"]
    assert isinstance(spec, dict)
    return spec


def _rules(spec: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Rules by name, wherever they are written."""
    found: dict[str, Mapping[str, object]] = {}
    for path in _RULE_LISTS:
        part: object = spec
        for name in path:
            part = part.get(name, {}) if isinstance(part, dict) else {}
        if isinstance(part, list):
            found.update({str(rule["name"]): rule for rule in part})
    return found


def _beside_rules(spec: Mapping[str, object]) -> dict[str, object]:
    def without(part: object) -> object:
        return {name: value for name, value in part.items() if name != "rules"} if isinstance(part, dict) else part

    return {name: without(value) for name, value in spec.items() if name != "rules"}


def _rule_changes(
    before: Mapping[str, Mapping[str, object]], after: Mapping[str, Mapping[str, object]]
) -> Iterator[RuleChange]:
    for name, rule in after.items():
        if name not in before:
            yield RuleChange(name, Kind.ADDED)
        elif before[name] != rule:
            fields = tuple(_differences(before[name], rule))
            yield RuleChange(name, Kind.CHANGED, fields, _counters(before[name]) != _counters(rule))
    for name in before:
        if name not in after:
            yield RuleChange(name, Kind.REMOVED)


def _counters(rule: Mapping[str, object]) -> object:
    """What the counters of a rule are known by."""
    limits = rule.get("limits", [])
    entries = rule.get("match", [])
    assert isinstance(limits, list)
    assert isinstance(entries, list)
    kinds = {str((each.get("algorithm"), each.get("window"), each.get("calendar"))) for each in limits}
    return kinds, [{name: value for name, value in each.items() if name != "from"} for each in entries]


def _differences(before: object, after: object, path: str = "") -> Iterator[FieldChange]:
    """Leaves that differ, in the order of the new form."""
    if isinstance(before, dict) or isinstance(after, dict):
        # A part that is not written at all is one whose every field is not.
        before = before if isinstance(before, dict) else {}
        after = after if isinstance(after, dict) else {}
        for name in (*after, *(each for each in before if each not in after)):
            yield from _differences(before.get(name), after.get(name), f"{path}.{name}".removeprefix("."))
    elif _same_length_lists(before, after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):  # type: ignore[call-overload]
            yield from _differences(old, new, f"{path}[{index}]")
    elif before != after:
        yield FieldChange(path, before, after)


def _same_length_lists(before: object, after: object) -> bool:
    return isinstance(before, Sequence) and isinstance(after, list) and len(before) == len(after)
