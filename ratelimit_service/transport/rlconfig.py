"""What is in force, as text: a line per limit, its first half as envoyproxy/ratelimit's `/rlconfig` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.policy.snapshot import Action, Rule, Snapshot

_RULES_PER_SLICE: Final = 200
"""Under 1 ms of work."""

_UNITS_US: Final = {
    1_000_000: "SECOND",
    60_000_000: "MINUTE",
    3_600_000_000: "HOUR",
    86_400_000_000: "DAY",
    604_800_000_000: "WEEK",
    2_592_000_000_000: "MONTH",
    31_536_000_000_000: "YEAR",
}


def render_rlconfig(snapshot: Snapshot) -> Iterator[bytes]:
    """The text in slices of `_RULES_PER_SLICE` rules, in the order of configuration."""
    rules = [rule for domain in snapshot.domains.values() for rule in domain.rules]
    for start in range(0, len(rules), _RULES_PER_SLICE):
        text = "".join(line for rule in rules[start : start + _RULES_PER_SLICE] for line in _rule_lines(rule))
        yield text.encode("utf-8", "backslashreplace")


def _rule_lines(rule: Rule) -> Iterator[str]:
    name = f"{rule.domain}.{rule.name}"
    if rule.action is not Action.LIMIT:
        word = "unlimited" if rule.action is Action.ALLOW else "deny"
        yield f"{name}: {word}: true{_origin(rule)}\n"
        return
    for item in rule.limits:
        yield f"{name}: {_limit_text(item.limit)}, {_modes(rule)}{_origin(rule)}\n"
    if rule.rollout is not None:
        for item in rule.rollout.limits:
            percent = f"rollout: {rule.rollout.percent}%"
            yield f"{name}: {_limit_text(item.limit)}, {_modes(rule)}, {percent}{_origin(rule)}\n"


def _limit_text(limit: Limit) -> str:
    calendar = limit.calendar
    unit = _UNITS_US.get(limit.window_us, "UNKNOWN") if calendar is None else calendar.unit.value.upper()
    window = f"window: {window_text(limit.window_us)}" if calendar is None else f"time_zone: {calendar.time_zone}"
    burst = f", burst: {limit.burst}" if limit.algorithm is Algorithm.TOKEN_BUCKET else ""
    head = f"unit={unit} requests_per_unit={limit.requests}"
    return f"{head}, algorithm: {limit.algorithm.value}, {window}{burst}"


def _modes(rule: Rule) -> str:
    modes = f"shadow_mode: {str(rule.shadow).lower()}, quota_mode: {str(rule.quota).lower()}"
    return modes + (", count_denied: true" if rule.count_denied else "")


def _origin(rule: Rule) -> str:
    return f" # {rule.origin}" if rule.origin else ""


def window_text(window_us: int) -> str:
    """A window's length in the greatest unit that divides it: `1h`, `90s`, `250ms`, `7us`."""
    for unit_us, unit in ((3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")):
        if window_us % unit_us == 0:
            return f"{window_us // unit_us}{unit}"
    return f"{window_us}us"
