"""What Envoy would refuse or never send is an error with the field's path."""

from __future__ import annotations

import pytest

from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile

_RULE = "  - {name: %s, match: [%s], limits: [{requests: 1, window: 1s}]}\n"


def told(*matches: str) -> list[tuple[str, str]]:
    """(path, message) of every problem of a policy with one rule per match list."""
    rules = "".join(_RULE % (f"r{place}", match) for place, match in enumerate(matches))
    text = (
        "apiVersion: tidegate.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: a}\n"
        f"spec:\n  domain: d\n  rules:\n{rules}"
    )
    _, problems = decode([SourceFile("a.yaml", text.encode())])
    return [(problem.path, problem.message) for problem in problems]


@pytest.mark.parametrize(
    ("match", "path", "words"),
    [
        ("{key: a, value: '', from: {type: Static}}", "value", "no empty one"),
        ("{key: a, type: Any, from: {type: Static}}", "from.type", "type Exact"),
        ("{key: a, type: Any, from: {type: Header, name: 'x y'}}", "from.name", "no name of a header"),
        ("{key: a, type: Any, from: {type: Header, name: x, ipv4Prefix: 8}}", "from.ipv4Prefix", "RemoteAddress"),
        ("{key: a, type: Any, from: {type: Path, path: [x]}}", "from.path", "go with Metadata"),
        ("{key: a, value: 10.0.0.0/8, from: {type: RemoteAddress}}", "value", "prefix that counts (/32; IPv6 /64)"),
        ("{key: a, value: home, from: {type: RemoteAddress}}", "value", "no address"),
    ],
)
def test_a_source_that_cannot_be_is_told_with_its_path(match: str, path: str, words: str) -> None:
    """One problem, where it is."""
    ((where, message),) = told(match)

    assert where == f"spec.rules[0].match[0].{path}"
    assert words in message


def test_good_sources_are_good() -> None:
    """Pseudo-headers and addresses in every form."""
    assert (
        told(
            "{key: a, type: Any, from: {type: Header, name: ':authority'}}",
            "{key: b, value: 10.0.0.0/8, from: {type: RemoteAddress, ipv4Prefix: 8}}",
            "{key: c, type: Prefix, value: '10.', from: {type: RemoteAddress}}",
        )
        == []
    )


def test_two_addresses_of_one_policy_need_something_between_them() -> None:
    """Envoy names an address itself, so two keys are one; a Static entry before one of them parts them."""
    network = "{key: net, type: Any, from: {type: RemoteAddress, ipv4Prefix: 24}}"
    client = "{key: client, type: Any, from: {type: RemoteAddress}}"
    ((path, message),) = told(client, network)

    assert path == "spec.rules[1].match"
    assert "put an entry with `from: {type: Static}` before one of them" in message
    assert told(client, f"{{key: scope, value: net, from: {{type: Static}}}}, {network}") == []


def test_a_broken_part_of_a_source_is_told_once() -> None:
    """What could not be decoded is not judged a second time."""
    found = told("{key: a, value: x, from: {type: RemoteAddress, ipv4Prefix: wide}}")

    assert [path for path, _ in found] == ["spec.rules[0].match[0].from.ipv4Prefix"]
