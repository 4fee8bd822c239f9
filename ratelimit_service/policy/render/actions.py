"""`rate_limits` of a route: the descriptors that Envoy is to send for the rules in force there.

One entry per distinct sequence of (key, where it is taken from) in a policy: a descriptor meets the one rule of its
policy that fits it best, as the tree decides, and two entries of one sequence would charge it twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.emitted import ADDRESS_KEY, NETWORK_KEY, emitted_key, is_whole_address, prefixes_of
from ratelimit_service.policy.manifest_compile import TARGET_KEY, place_of, policy_name, written_rules
from ratelimit_service.policy.model import Match, RateLimitPolicy, RuleSpec, SourceType, ValueSource
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.targets.precedence import Standing, live_rules

Config = dict[str, object]
"""A message of Envoy's API as JSON would write it."""

EXPRESSION: Final = "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor"
"""Type of the producer that evaluates an expression over the request."""


def union(standing: Sequence[Standing], stage: int = 0) -> list[Config]:
    """`rate_limits` of everything in force at a point; Envoy merges no lists, so each place gets all of it.

    `stage` keeps them apart from rate limits that somebody else wrote on the same route.
    """
    return [entry for each in standing for entry in entries_of(each.policy, each.rules, stage)]


def entries_of(policy: RateLimitPolicy, rules: Iterable[RuleSpec], stage: int = 0) -> list[Config]:
    """`rate_limits` entries of some rules of a policy; every `match` has a `from` (see `unsourced`)."""
    head: list[Config] = []
    if policy.spec.domain is None:
        head = [_static(TARGET_KEY.decode(), policy_name(policy))]
    entries: dict[object, Config] = {}
    for rule in rules:
        sequence = sequence_of(rule)
        if sequence not in entries:
            entry: Config = {"actions": head + [action_of(match) for match in rule.match]}
            if stage:
                entry["stage"] = stage
            entries[sequence] = entry
    return list(entries.values())


def sequence_of(rule: RuleSpec) -> object:
    """What two rules share that one entry of `rate_limits` serves."""
    return tuple(
        (
            emitted_key(match),
            match.source,
            match.value if match.source is not None and match.source.type is SourceType.STATIC else None,
        )
        for match in rule.match
    )


def action_of(match: Match) -> Config:
    """The action of one entry; `match.source` is given."""
    source = match.source
    assert source is not None
    if source.type is SourceType.REMOTE_ADDRESS:
        return _remote_address(source)
    if source.type is SourceType.METADATA:
        return _metadata(match.key, source)
    if source.type is SourceType.STATIC:
        return _static(match.key, match.value or "")
    if source.type is SourceType.QUERY_PARAMETER:
        return {"query_parameters": {"query_parameter_name": source.name, "descriptor_key": match.key}}
    if source.type is SourceType.PATH:
        # `:path` as a header has the query string; this attribute has not.
        producer = {"@type": EXPRESSION, "descriptor_key": match.key, "text": "request.url_path"}
        return {"extension": {"name": "envoy.rate_limit_descriptors.expr", "typed_config": producer}}
    name = ":method" if source.type is SourceType.METHOD else source.name
    return {"request_headers": {"header_name": name, "descriptor_key": match.key}}


def _remote_address(source: ValueSource) -> Config:
    if is_whole_address(source):
        return {ADDRESS_KEY: {}}
    ipv4, ipv6 = prefixes_of(source)
    return {NETWORK_KEY: {"v4_prefix_mask_len": ipv4, "v6_prefix_mask_len": ipv6}}


def _metadata(key: str, source: ValueSource) -> Config:
    where = {"key": source.filter, "path": [{"key": part} for part in source.path]}
    return {"metadata": {"descriptor_key": key, "metadata_key": where, "source": "DYNAMIC"}}


def _static(key: str, value: str) -> Config:
    return {"generic_key": {"descriptor_key": key, "descriptor_value": value}}


def unsourced(policy: RateLimitPolicy) -> list[Problem]:
    """Entries that do not say where Envoy takes them: only a policy with a domain may have such."""
    where, rules = written_rules(policy)
    live = set(map(id, live_rules(policy)))
    return [
        place_of(policy, f"{where}[{index}].match[{position}].from").problem(
            f"is needed to render: where does Envoy take `{match.key}`?"
        )
        for index, rule in enumerate(rules)
        if id(rule) in live
        for position, match in enumerate(rule.match)
        if match.source is None
    ]


class Blurred(msgspec.Struct, frozen=True):
    """A rule that is overridden at a point and reached there all the same."""

    policy: RateLimitPolicy
    rule: RuleSpec
    sibling: RuleSpec

    def problem(self) -> Problem:
        """Told to its author: the request carries one descriptor for both rules."""
        index = written_rules(self.policy)[1].index(self.rule)
        return place_of(self.policy, f"{written_rules(self.policy)[0]}[{index}]").problem(
            f"a policy of another level overrides rule `{self.rule.name}`, but it takes its values from where rule "
            f"`{self.sibling.name}` takes them, so requests reach it all the same; give one of them another key",
            Severity.WARNING,
        )


def blurred(standing: Sequence[Standing]) -> list[Blurred]:
    """Overridden rules that share their sequence with a rule of the same policy that is in force.

    Envoy sends a sequence for both or for neither.
    """
    found = []
    for each in standing:
        sequences = {sequence_of(rule): rule for rule in each.rules}
        for rule in live_rules(each.policy):
            sibling = sequences.get(sequence_of(rule))
            if rule not in each.rules and sibling is not None:
                found.append(Blurred(each.policy, rule, sibling))
    return found
