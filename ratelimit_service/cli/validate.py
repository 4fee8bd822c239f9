"""`tidegate validate`: read policies as `serve` would, and tell everything that is wrong."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from ratelimit_service.policy.compile import refuses
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.policy.wording import count_text
from ratelimit_service.sources.loading import load_once

_REHEARSALS: Final = "tidegate.rehearsals"
"""Entry-point group of what can be asked beside our own decoder."""


@click.command
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--merge-domain-config", is_flag=True, help="As for `serve`.")
@click.option("--against-cluster", is_flag=True, help="Ask the API server too; nothing is kept there.")
@click.option("--kubeconfig", default="", help="How to reach it.  [KUBECONFIG, else ~/.kube/config]")
def validate(paths: tuple[str, ...], merge_domain_config: bool, against_cluster: bool, kubeconfig: str) -> None:
    """Check policy files and folders, all of them as one set.

    Exits with 1 and every problem, or with 0 and a summary. Warnings are told and are no reason to fail.
    """
    refusals = _rehearsal() if against_cluster else None
    snapshot, problems = load_once(paths, CompileOptions(merge_domain_config=merge_domain_config))
    errors = Console(stderr=True, soft_wrap=True)
    for problem in problems:
        errors.print(problem_text(problem))
    if refuses(problems):
        count = sum(problem.severity is Severity.ERROR for problem in problems)
        errors.print(Text(f"refused: {count_text(count, 'error')}", style="bold red"))
        sys.exit(1)
    refused = [] if refusals is None else refusals(paths, kubeconfig)
    for line in refused:
        errors.print(Text(f"refused by the API server: {line}", style="red"))
    if refused:
        sys.exit(1)
    Console(soft_wrap=True).print(Text(_summary(snapshot), style="green"))


def _rehearsal() -> Callable[[Sequence[str], str], Sequence[str]]:
    """What asks the API server; it comes with the operator's package."""
    for found in importlib.metadata.entry_points(group=_REHEARSALS, name="cluster"):
        ask: Callable[[Sequence[str], str], Sequence[str]] = found.load()
        return ask
    raise click.UsageError("--against-cluster needs the operator's package: pip install tidegate[operator]")


def problem_text(problem: Problem) -> Text:
    """One line: severity, place, field, what is wrong."""
    style = "red" if problem.severity is Severity.ERROR else "yellow"
    return Text.assemble((f"{problem.severity.value}: ", style), str(problem))


def _summary(snapshot: Snapshot) -> str:
    rules = [rule for domain in snapshot.domains.values() for rule in domain.rules]
    limits = sum(len(rule.limits) for rule in rules)
    counts = (count_text(len(snapshot.domains), "domain"), count_text(len(rules), "rule"), count_text(limits, "limit"))
    return f"valid: {', '.join(counts)}, version {snapshot.version}"
