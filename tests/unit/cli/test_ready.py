"""What `serve` prints when it is ready."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from ratelimit_service.cli.main import main
from ratelimit_service.cli.ready import command_name, ready_text
from ratelimit_service.policy.compile import compile  # noqa: A004 — its name
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.snapshot import Snapshot

RULES = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: p, namespace: n}
spec:
  domain: n.shop
  rules:
"""


def snapshot_of(rules: str) -> Snapshot:
    objects, problems = decode([SourceFile("p.yaml", (RULES + rules).encode())])
    assert problems == []
    return compile(objects, CompileOptions())[0]


def test_addresses_content_and_a_line_to_try() -> None:
    """The smallest enforced limit is asked for two times more often than it allows."""
    snapshot = snapshot_of(
        "  - {name: big, match: [{key: a, type: Any}], limits: [{requests: 500, window: 1s}]}\n"
        "  - {name: trial, match: [{key: s}], mode: Shadow, limits: [{requests: 1, window: 1s}]}\n".replace(
            "{key: s}", "{key: s, type: Any}"
        )
        + "  - name: small\n"
        "    match: [{key: plan, value: 'a b'}, {key: k, type: Prefix, value: x-}, {key: user, type: Any}]\n"
        "    limits: [{requests: 3, window: 1s}]\n"
    )

    assert ready_text("1.2.3", ["0.0.0.0:8081", "unix:/x"], ["127.0.0.1:8080"], snapshot).splitlines() == [
        "tidegate 1.2.3 is ready: grpc 0.0.0.0:8081 unix:/x admin 127.0.0.1:8080",
        f"policies: 1 domain, 3 rules, version {snapshot.version}",
        "try: tidegate check --target 127.0.0.1:8081 --domain n.shop 'plan=a b' k=x-1 user=alice --repeat 5",
    ]


def test_nothing_that_limits_gives_no_line_to_try() -> None:
    """An exempt value would show nothing."""
    snapshot = snapshot_of("  - {name: open, match: [{key: a, value: b}], action: Allow}\n")

    assert "try:" not in ready_text("1", ["h:1"], ["h:2"], snapshot)


def test_without_policies_it_says_what_callers_get() -> None:
    """`--start-without-policies`: the service is up and not ready."""
    assert "every call is UNAVAILABLE" in ready_text("1", ["h:1"], ["h:2"], None)


def test_the_line_to_try_is_a_command_that_exists() -> None:
    """Its flags are those of `tidegate check`: what fails is only that nobody listens."""
    snapshot = snapshot_of("  - {name: small, match: [{key: a, type: Any}], limits: [{requests: 1, window: 1s}]}\n")
    line = ready_text("1", ["127.0.0.1:1"], ["h:2"], snapshot).splitlines()[-1]
    done = CliRunner().invoke(main, [*shlex.split(line.removeprefix("try: tidegate ")), "--timeout", "1"])

    assert done.exit_code == 1
    assert "no verdict from 127.0.0.1:1" in done.output


@pytest.mark.parametrize(
    ("started_as", "on_path", "expected"),
    [
        ("/somewhere/cli/__main__.py", None, "tidegate"),
        (".venv/bin/tidegate", "/usr/bin/tidegate", "tidegate"),
        (".venv/bin/tidegate", None, ".venv/bin/tidegate"),
    ],
)
def test_the_program_is_named_as_a_reader_may_type_it(started_as, on_path, expected):
    """By its path only where a shell would not find it."""
    assert command_name(started_as, on_path) == expected
