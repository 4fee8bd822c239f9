"""Keys and values as Envoy really sends them, so that a rule meets what it was written for (DECISIONS 54).

`remote_address` and `masked_remote_address` carry a key of their own and no other; a masked value is a network
(`192.0.2.0/24`). Every other source takes the key that the rule names.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from ratelimit_service.policy.model import Match, MatchType, SourceType, ValueSource

IPV4_BITS: Final = 32
IPV6_BITS: Final = 128
IPV6_DEFAULT_BITS: Final = 64
"""What one customer of an internet provider usually has."""

ADDRESS_KEY: Final = "remote_address"
NETWORK_KEY: Final = "masked_remote_address"


def prefixes_of(source: ValueSource) -> tuple[int, int]:
    """Bits of an IPv4 and of an IPv6 address that count."""
    return source.ipv4_prefix or IPV4_BITS, source.ipv6_prefix or IPV6_DEFAULT_BITS


def is_whole_address(source: ValueSource) -> bool:
    """Whether every bit counts in both families: then Envoy sends the address itself and not a network."""
    return prefixes_of(source) == (IPV4_BITS, IPV6_BITS)


def emitted_key(match: Match) -> str:
    """Key of the entry that Envoy sends for this one."""
    source = match.source
    if source is None or source.type is not SourceType.REMOTE_ADDRESS:
        return match.key
    return ADDRESS_KEY if is_whole_address(source) else NETWORK_KEY


def emitted_value(match: Match) -> str:
    """The value that is compared: an address written for a network is the network of that address.

    Any has no value: empty.
    """
    value, source = match.value or "", match.source
    if source is None or source.type is not SourceType.REMOTE_ADDRESS or match.type is not MatchType.EXACT:
        return value
    network = network_of(source, value)
    return value if network is None else network


def network_of(source: ValueSource, text: str) -> str | None:
    """What Envoy sends for a client of that address or network; None: no client has it.

    `203.0.113.9` is `203.0.113.0/24` where 24 bits count; `203.0.113.0/24` is no value where 32 do.
    """
    address, slash, _ = text.partition("/")
    try:
        parsed = ipaddress.ip_address(address)
        bits = prefixes_of(source)[0 if parsed.version == 4 else 1]
        if slash and ipaddress.ip_network(text, strict=False).prefixlen != bits:
            return None
    except ValueError:
        return None
    if is_whole_address(source):
        return str(parsed)
    return str(ipaddress.ip_network((parsed, bits), strict=False))
