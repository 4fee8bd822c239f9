"""`tidegate validate` and `tidegate explain`: policies without a service."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, Limit
from ratelimit_service.cli.explain import limit_text
from ratelimit_service.cli.main import main

EXAMPLES = Path(__file__).parent.parent.parent.parent / "examples"
POLICIES = str(EXAMPLES / "policies")

TWICE_WRONG = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: wrong, namespace: shop}
spec:
  domain: shop
  rules:
  - name: no-window
    match: [{key: user, type: Any}]
    limits: [{requests: 5}]
  - name: no-value
    match: [{key: user}]
    limits: [{requests: 5, window: 10s}]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env={"COLUMNS": "200"})


def explained(*entries: str, domain: str = "shop.checkout") -> list[list[str]]:
    """Cells of explain's rows."""
    done = run("explain", "--policies", POLICIES, "--domain", domain, *entries)
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]


def test_the_examples_are_valid() -> None:
    """Both formats, as one set, without a warning."""
    done = run("validate", POLICIES, str(EXAMPLES / "upstream"))

    assert done.exit_code == 0
    assert done.output.startswith("valid: 6 domains, ")


def test_every_problem_of_every_file_is_told(tmp_path: Path) -> None:
    """Exit code 1; each line names file, line and field; the last says how many."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(
            TWICE_WRONG.replace("wrong", name[0]).replace("domain: shop", f"domain: {name[0]}")
        )
    done = run("validate", str(tmp_path))
    lines = done.output.splitlines()

    assert done.exit_code == 1
    assert [line.split(": ")[:3] for line in lines[:-1]] == [
        ["error", f"{tmp_path}/{name}:{line}", path]
        for name in ("a.yaml", "b.yaml")
        for line, path in ((9, "spec.rules[0].limits[0]"), (11, "spec.rules[1].match[0].value"))
    ]
    assert lines[-1] == "refused: 4 errors"


def test_a_path_that_is_not_there_is_a_problem() -> None:
    """Told like any other."""
    done = run("validate", "/no/such/place")

    assert done.exit_code == 1
    assert "error: /no/such/place: cannot be read" in done.output
    assert "refused: 1 error\n" in done.output


def test_explain_names_rule_key_and_limits() -> None:
    """One row per entry, then the rule, where it is written, what is counted, and each limit."""
    rows = explained("plan=gold", "method=POST", "tenant=acme")
    facts = {name: text for name, text in rows if name in {"rule", "action", "counted"}}

    assert [name for name, _ in rows[:4]] == ["entry", "entry", "entry", "rule"]
    assert facts == {
        "rule": "rule `gold-writes` stands at the last entry",
        "action": "Limit",
        "counted": "one count for plan=gold method=POST tenant=acme",
    }
    assert [text for name, text in rows if name == "limit"] == [
        "600 per 1m, TokenBucket, burst 200",
        "100000 per month in Europe/Zurich, FixedWindow",
    ]


def test_explain_says_why_no_rule_applies() -> None:
    """An entry that meets nothing, and the rules that came near."""
    rows = explained("plan=silver")
    text = " ".join(cell for row in rows for cell in row)

    assert "met nothing" in text
    assert any(name == "not" and "gold-writes" in why for name, why in rows)


def test_explain_shows_what_is_shared_and_what_is_special() -> None:
    """A shared prefix counts under its pattern; shadow and countDenied are said."""
    shared = explained("api_key=partner-7", domain="shop.partners")
    login = explained("account=root", domain="shop.login")

    assert ["counted", "one count for api_key=partner-*"] in shared
    assert ["mode", "shadow: counts and reports, never rejects"] in shared
    assert ["mode", "countDenied: denied requests are charged too"] in login


def test_explain_of_an_exempt_value_has_no_limits() -> None:
    """Allow and Deny count nothing."""
    rows = explained("path=/healthz")

    assert ["action", "Allow"] in rows
    assert "limit" not in {name for name, _ in rows}


def test_explain_of_several_descriptors_is_a_table_each() -> None:
    """Parted by `--descriptor`."""
    rows = explained("user=ann", "--descriptor", "path=/internal/x")

    assert [text for name, text in rows if name == "action"] == ["Limit", "Deny"]


def test_an_unknown_domain_limits_nothing_and_the_known_ones_are_named() -> None:
    """The most frequent mistake is a domain that Envoy and policies spell differently."""
    done = run("explain", "--policies", POLICIES, "--domain", "shop.chekout", "user=ann")

    assert done.exit_code == 0
    assert "no policy names domain shop.chekout" in done.output
    assert "shop.checkout" in done.output


def test_explain_refuses_bad_policies_as_validate_does(tmp_path: Path) -> None:
    """All problems, exit code 1."""
    (tmp_path / "wrong.yaml").write_text(TWICE_WRONG)
    done = run("explain", "--policies", str(tmp_path), "--domain", "shop", "user=ann")

    assert done.exit_code == 1
    assert done.output.count("error: ") == 2


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (Limit(Algorithm.SLIDING_WINDOW, 5, 10_000_000, 5), "5 per 10s, SlidingWindow"),
        (Limit(Algorithm.TOKEN_BUCKET, 10, 1_000_000, 30), "10 per 1s, TokenBucket, burst 30"),
        (
            Limit(Algorithm.FIXED_WINDOW, 7, 0, 7, Calendar(CalendarUnit.DAY, "Asia/Tokyo")),
            "7 per day in Asia/Tokyo, FixedWindow",
        ),
    ],
)
def test_a_limit_in_words(limit: Limit, text: str) -> None:
    """Requests, window, law."""
    assert limit_text(limit) == text


def test_help_lists_every_command() -> None:
    """With a line each."""
    done = run("--help")

    assert done.exit_code == 0
    assert [name for name in ("serve", "check", "validate", "explain") if f"  {name} " in done.output] == [
        "serve",
        "check",
        "validate",
        "explain",
    ]


def test_an_unknown_command_is_a_usage_error() -> None:
    """Exit code 2, and its name."""
    done = run("serv")

    assert done.exit_code == 2
    assert "No such command 'serv'" in done.output
