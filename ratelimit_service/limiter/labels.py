"""The `rule` label of metrics: bounded, whatever clients send (DECISIONS 36)."""

from __future__ import annotations

from typing import Final

from ratelimit_service.policy.snapshot import LabelMode, Rule
from ratelimit_service.wire.rls.messages import Descriptor

OVERRIDE_LABEL: Final = "_override"
"""All limits that descriptors carry with them: their number is the clients', so they share one label."""
OVERFLOW_VALUE: Final = "_overflow"
"""Stands for every value beyond the rule's most series."""
ROLLOUT_SUFFIX: Final = "/rollout"
"""Ends the label of what `rollout.limits` say."""
MOST_VALUE_CHARACTERS: Final = 64
"""Longer keys and values are cut in labels."""


class Labels:
    """Labels of rules. Values appear only where the policy asks for them.

    A rule shows at most its `max_series` of them, all rules together at most `most_values`. As in the table of
    counters that the labels name, what was shown once is never taken back.
    """

    def __init__(self, most_values: int) -> None:
        self._room = most_values
        self._seen: dict[tuple[str, str], set[str]] = {}

    def label(self, rule: Rule, descriptor: Descriptor) -> str:
        """The label for a descriptor that met `rule`; `name[_overflow]` where there is no more room for values."""
        detail = _detail(rule, descriptor)
        if not detail:
            return rule.name
        seen = self._seen.get((rule.domain, rule.name)) or set()
        if detail in seen:
            return f"{rule.name}[{detail}]"
        if not self._room or len(seen) >= rule.max_series:
            return f"{rule.name}[{OVERFLOW_VALUE}]"
        self._room -= 1
        seen.add(detail)
        self._seen[rule.domain, rule.name] = seen
        return f"{rule.name}[{detail}]"


def shows_values(rule: Rule) -> bool:
    """Whether the rule's label depends on a descriptor's values."""
    return rule.labels is LabelMode.KEY_VALUE or any(rule.value_labels)


def _detail(rule: Rule, descriptor: Descriptor) -> str:
    parts = []
    for index, (key, value) in enumerate(descriptor.entries):
        shared = rule.shared[index] if index < len(rule.shared) else None
        shows_value = rule.labels is LabelMode.KEY_VALUE or (
            index < len(rule.value_labels) and rule.value_labels[index]
        )
        if shows_value:
            parts.append(f"{_text(key)}={_text(value if shared is None else shared)}")
        elif rule.labels is LabelMode.KEY:
            parts.append(_text(key))
    return ",".join(parts)


def _text(raw: bytes) -> str:
    return raw[: MOST_VALUE_CHARACTERS * 4].decode("utf-8", "backslashreplace")[:MOST_VALUE_CHARACTERS]
