"""Rules of `from` that CEL does not check: what Envoy would refuse, or what it would never send.

A configuration that Envoy refuses would take every limit with it, so it is an error here, with the field's path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from ratelimit_service.policy.emitted import emitted_key, emitted_value, network_of, prefixes_of
from ratelimit_service.policy.model import Match, MatchType, RuleSpec, SourceType, ValueSource
from ratelimit_service.policy.schema import BROKEN, Check, Finding, placed
from ratelimit_service.policy.wording import shown

_HEADER_NAME: Final = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
"""A field name of RFC 9110 §5.1, or one of HTTP/2's pseudo-headers."""


def _filter_with_path(source: ValueSource) -> Iterator[Finding]:
    # The CEL rule on `filter` lets one of the two stand alone; alone it means nothing.
    given = (source.filter is not None) + (source.path != ())
    if source.type is not SourceType.METADATA and given == 1:
        yield (".filter" if source.filter is not None else ".path"), "filter and path go with Metadata"


def _prefixes_for_addresses(source: ValueSource) -> Iterator[Finding]:
    if source.type is not SourceType.REMOTE_ADDRESS:
        for value, name in ((source.ipv4_prefix, "ipv4Prefix"), (source.ipv6_prefix, "ipv6Prefix")):
            if value is not None:
                yield f".{name}", f"{name} goes with RemoteAddress"


def _header_name(source: ValueSource) -> Iterator[Finding]:
    if source.type is SourceType.HEADER and source.name is not None and not _HEADER_NAME.match(source.name):
        yield ".name", f"`{shown(source.name)}` is no name of a header: letters, digits and -_.!#$%&'*+^`|~"


def _static_sends_a_value(match: Match) -> Iterator[Finding]:
    if match.source is None or match.source.type is not SourceType.STATIC:
        return
    if match.type is not MatchType.EXACT:
        yield ".from.type", "Static goes with type Exact: what it sends is match.value"
    elif match.value == "":
        yield ".value", "Static sends this value, and Envoy sends no empty one"


def _is_broken(match: Match) -> bool:
    """Whether what decides about its key and value could not be decoded."""
    parts: list[object] = [match.key, match.type, match.value, match.source]
    if isinstance(match.source, ValueSource):
        parts += [match.source.type, match.source.ipv4_prefix, match.source.ipv6_prefix]
    return BROKEN in parts


def _address_is_sent(match: Match) -> Iterator[Finding]:
    source = match.source
    if source is None or source.type is not SourceType.REMOTE_ADDRESS or match.type is not MatchType.EXACT:
        return
    if _is_broken(match):
        return
    if match.value is not None and network_of(source, match.value) is None:
        ipv4, ipv6 = prefixes_of(source)
        message = (
            f"`{shown(match.value)}` is no address: write one such as 192.0.2.1, "
            f"or its network with the prefix that counts (/{ipv4}; IPv6 /{ipv6})"
        )
        yield ".value", message


def chain_as_sent(match: Sequence[Match]) -> object:
    """Two rules of one policy with the same chain would be one rule (DECISIONS 10)."""
    return tuple((emitted_key(each), each.type, None if each.value is None else emitted_value(each)) for each in match)


def chains_differ(rules: Sequence[RuleSpec], path: str) -> Iterator[Finding]:
    """One chain is one rule."""
    first: dict[object, RuleSpec] = {}
    for place, rule in placed(rules):
        if BROKEN in rule.match or any(map(_is_broken, rule.match)):
            continue
        earlier = first.setdefault(chain_as_sent(rule.match), rule)
        if earlier is rule:
            continue
        keys = [[each.key for each in each_rule.match] for each_rule in (earlier, rule)]
        message = f"same entries as rule `{earlier.name}`; put both into one rule's limits"
        if keys[0] != keys[1]:
            message = (
                f"same entries as rule `{earlier.name}`: whatever the prefix, Envoy names an address itself; "
                "put an entry with `from: {type: Static}` before one of them"
            )
        yield f"{path}[{place}].match", message


CHECKS: Final[Sequence[tuple[type, Check]]] = (
    (Match, Check(_static_sends_a_value, ("type", "source", "value"))),
    (Match, Check(_address_is_sent, ("type", "source", "value"))),
    (ValueSource, Check(_filter_with_path, ("type",))),
    (ValueSource, Check(_prefixes_for_addresses, ("type",))),
    (ValueSource, Check(_header_name, ("type", "name"))),
)
"""By the part that they are about."""
