"""`tidegate validate`: read policies as `serve` would, and tell everything that is wrong."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.text import Text

from ratelimit_service.policy.compile import CompileOptions, refuses
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.policy.wording import count_text
from ratelimit_service.sources.loading import load_once


@click.command
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--merge-domain-config", is_flag=True, help="As for `serve`.")
def validate(paths: tuple[str, ...], merge_domain_config: bool) -> None:
    """Check policy files and folders, all of them as one set.

    Exits with 1 and every problem, or with 0 and a summary. Warnings are told and are no reason to fail.
    """
    snapshot, problems = load_once(paths, CompileOptions(merge_domain_config=merge_domain_config))
    errors = Console(stderr=True, soft_wrap=True)
    for problem in problems:
        errors.print(problem_text(problem))
    if refuses(problems):
        count = sum(problem.severity is Severity.ERROR for problem in problems)
        errors.print(Text(f"refused: {count_text(count, 'error')}", style="bold red"))
        sys.exit(1)
    Console(soft_wrap=True).print(Text(_summary(snapshot), style="green"))


def problem_text(problem: Problem) -> Text:
    """One line: severity, place, field, what is wrong."""
    style = "red" if problem.severity is Severity.ERROR else "yellow"
    return Text.assemble((f"{problem.severity.value}: ", style), str(problem))


def _summary(snapshot: Snapshot) -> str:
    rules = [rule for domain in snapshot.domains.values() for rule in domain.rules]
    limits = sum(len(rule.limits) for rule in rules)
    counts = (count_text(len(snapshot.domains), "domain"), count_text(len(rules), "rule"), count_text(limits, "limit"))
    return f"valid: {', '.join(counts)}, version {snapshot.version}"
