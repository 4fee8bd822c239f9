"""Request bytes to what is counted, without the values in between.

Nearly every request is a domain and then descriptors of a few short entries, and nothing else. Such bytes are walked
once, along the policies' tree: each entry leads to the next node, and its value, with the length byte before it, is
already the piece of the counter's key that `counter_key` would make of it. All else is None, and read the long way by
`decode_request`, `match` and `counter_key`, which give the same wherever this gives anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit_service.policy.match import child_of
from ratelimit_service.policy.snapshot import Domain, Rule

MOST_DESCRIPTORS: Final = 8
_FIRST_FIELD, _SECOND_FIELD = 0x0A, 0x12
"""Fields 1 and 2 as LENGTH: domain and descriptor of a request, entry of a descriptor, key and value of an entry."""
_TWO_BYTES: Final = 0x80
"""From here on a length takes more than one byte."""

Met = tuple[Rule, bytes]
"""A rule, and the key of its counters."""


def read_plain(body: bytes, domains: Mapping[bytes, Domain]) -> list[Met] | None:
    """What each descriptor of a request meets; none of it has hits of its own.

    None: the request has hits, limits of its own, long or empty fields, more than a few descriptors, an unknown domain
    or a descriptor without a rule; or it is malformed.
    """
    try:
        start = 2 + body[1]
        domain = domains.get(body[2:start]) if body[0] == _FIRST_FIELD and start < 2 + _TWO_BYTES else None
        if domain is None:
            return None
        at, end = start, len(body)
        met: list[Met] = []
        while at < end:
            size = body[at + 1]
            stop = at + 2 + size
            if body[at] != _SECOND_FIELD or size >= _TWO_BYTES or stop > end:
                return None
            found = _read_descriptor(body, at + 2, stop, domain)
            if found is None:
                return None
            met.append(found)
            at = stop
    except IndexError:
        return None
    return met if 0 < len(met) <= MOST_DESCRIPTORS else None


def _read_descriptor(body: bytes, at: int, stop: int, domain: Domain) -> Met | None:
    """What the descriptor between `at` and `stop` meets."""
    node, key = domain.root, b""
    while at < stop:
        # An entry: tag, length, then tag, length and text of the key, then the same of the value.
        end = at + 2 + body[at + 1]
        value_at = at + 4 + body[at + 3]
        if body[at] != _FIRST_FIELD or body[at + 2] != _FIRST_FIELD or value_at >= end or end > stop:
            return None
        size = body[value_at + 1]
        if body[value_at] != _SECOND_FIELD or value_at + 2 + size != end or end - at >= _TWO_BYTES:
            return None
        child = child_of(node, body[at + 4 : value_at], body[value_at + 2 : end])
        if child is None:
            return None
        node = child
        key += body[value_at + 1 : end]
        at = end
    rule = node.rule
    return None if rule is None else (rule, key)
