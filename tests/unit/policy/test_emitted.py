"""Keys and values as Envoy sends them."""

from __future__ import annotations

import pytest

from ratelimit_service.policy.emitted import emitted_key, emitted_value, network_of
from ratelimit_service.policy.model import Match, MatchType, SourceType, ValueSource


def address(value: str | None = None, ipv4: int | None = None, ipv6: int | None = None) -> Match:
    source = ValueSource(type=SourceType.REMOTE_ADDRESS, ipv4_prefix=ipv4, ipv6_prefix=ipv6)
    kind = MatchType.ANY if value is None else MatchType.EXACT
    return Match(key="client", type=kind, value=value, source=source)


def test_an_address_has_the_key_that_envoy_gives_it() -> None:
    """Masked unless every bit of both families counts; other sources keep the rule's own key."""
    header = ValueSource(type=SourceType.HEADER, name="x-user")

    assert emitted_key(address()) == "masked_remote_address"
    assert emitted_key(address(ipv6=128)) == "remote_address"
    assert emitted_key(address(ipv4=24, ipv6=128)) == "masked_remote_address"
    assert emitted_key(Match(key="user", type=MatchType.ANY, source=header)) == "user"
    assert emitted_key(Match(key="user", type=MatchType.ANY)) == "user"


@pytest.mark.parametrize(
    ("written", "ipv4", "ipv6", "sent"),
    [
        ("203.0.113.9", None, None, "203.0.113.9/32"),
        ("203.0.113.9", 24, None, "203.0.113.0/24"),
        ("203.0.113.0/24", 24, None, "203.0.113.0/24"),
        ("203.0.113.9", None, 128, "203.0.113.9"),
        ("203.0.113.9/32", None, 128, "203.0.113.9"),
        ("2001:DB8::1", None, None, "2001:db8::/64"),
        ("2001:db8::1", None, 128, "2001:db8::1"),
    ],
)
def test_an_address_is_compared_as_the_network_that_envoy_sends(
    written: str, ipv4: int | None, ipv6: int | None, sent: str
) -> None:
    """However it is written."""
    assert emitted_value(address(written, ipv4, ipv6)) == sent


@pytest.mark.parametrize("written", ["203.0.113.0/24", "somewhere", "203.0.113", "203.0.113.9/x", ""])
def test_what_no_client_has_is_no_network(written: str) -> None:
    """A prefix that is not the one that counts would never be met."""
    match = address(written)
    assert match.source is not None

    assert network_of(match.source, written) is None
    assert emitted_value(match) == written
