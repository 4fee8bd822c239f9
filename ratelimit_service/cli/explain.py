"""`tidegate explain`: which rule a descriptor or an HTTP request meets, and why not another."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.cli.descriptors import DescriptorCommand, Entries, entries_text, parse_descriptors
from ratelimit_service.cli.explain_request import RequestOptions, explain_request
from ratelimit_service.cli.validate import problem_text
from ratelimit_service.policy.compile import refuses
from ratelimit_service.policy.match import Trace, trace
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.quantities import duration_text
from ratelimit_service.policy.snapshot import Action, Domain, Rule
from ratelimit_service.sources.loading import load_once


@click.command(cls=DescriptorCommand)
@click.argument("entries", nargs=-1, metavar="KEY=VALUE… [--descriptor KEY=VALUE…]…")
@click.option("--policies", "paths", required=True, multiple=True, help="File or folder; may be repeated.")
@click.option("--domain", "domain_name", help="Domain, as Envoy's filter sends it.")
@click.option("--merge-domain-config", is_flag=True, help="As for `serve`.")
@click.option("--request", "line", metavar="'GET /PATH'", help="An HTTP request in place of entries.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Of the request; may be repeated.")
@click.option("--remote", default="127.0.0.1", show_default=True, metavar="IP", help="Its client, as Envoy sees it.")
@click.option("--metadata", multiple=True, metavar="FILTER/KEY…=VALUE", help="What filters before have set.")
@click.option("--gateway", metavar="NAMESPACE/NAME", help="Where it comes in; one of the files.")
@click.option("--route", metavar="[KIND/]NAMESPACE/NAME[:RULE]", help="The route that takes it, of that Gateway.")
@click.option("--repeat", type=click.IntRange(1, 1000), default=1, show_default=True, help="Equal requests.")
def explain(
    entries: tuple[str, ...],
    paths: tuple[str, ...],
    domain_name: str | None,
    merge_domain_config: bool,
    line: str | None,
    repeat: int,
    **request: Any,
) -> None:
    """Show what policies say of a request, without a running service.

    For each descriptor: which rule it meets and by which steps, what is counted, the limits, and why no other rule.
    Write --descriptor between the entries of several descriptors. With --request, the descriptors are those that Envoy
    would send, configured as `tidegate render` has it, and a fresh service's verdicts follow.
    Exits with 1 when the policies are refused.
    """
    if line is not None:
        if entries:
            raise click.UsageError("give either a request or entries")
        explain_request(paths, domain_name, line, repeat, RequestOptions(**request), show_descriptor)
        return
    if domain_name is None:
        raise click.UsageError("entries need --domain")
    _explain_entries(parse_descriptors(entries), paths, domain_name, merge_domain_config)


def _explain_entries(
    descriptors: Sequence[Entries], paths: tuple[str, ...], domain_name: str, merge_domain_config: bool
) -> None:
    snapshot, problems = load_once(paths, CompileOptions(merge_domain_config=merge_domain_config))
    if refuses(problems):
        errors = Console(stderr=True, soft_wrap=True)
        for problem in problems:
            errors.print(problem_text(problem))
        sys.exit(1)
    console = Console()
    domain = snapshot.domains.get(domain_name.encode("utf-8", "surrogateescape"))
    if domain is None:
        known = ", ".join(sorted(each.name for each in snapshot.domains.values()))
        console.print(Text(f"no policy names domain {domain_name}: nothing is limited. Known: {known or 'none'}"))
        return
    for descriptor in descriptors:
        show_descriptor(console, domain, descriptor)


def show_descriptor(console: Console, domain: Domain, entries: Entries) -> None:
    """One descriptor as a table: its steps, its rule, its limits, and the rules that it did not meet."""
    found = trace(domain, entries)
    table = Table(title=Text(entries_text(entries)), title_justify="left", show_header=False, min_width=60)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _rows(found, entries):
        table.add_row(Text(name), Text(text))
    console.print(table)


def _rows(found: Trace, entries: Entries) -> Iterator[tuple[str, str]]:
    for step in found.steps:
        yield "entry", f"{step.entry} → {step.branch or 'nothing'} ({step.why})"
    yield "rule", found.why
    if found.rule is not None:
        yield from _rule_rows(found.rule, entries)
    for candidate in found.candidates:
        yield "not", f"{candidate.rule.name} [{candidate.chain}]: {candidate.why}"


def _rule_rows(rule: Rule, entries: Entries) -> Iterator[tuple[str, str]]:
    yield "written", f"{rule.origin}{f' in {rule.policy}' if rule.policy else ''}"
    yield "action", rule.action.value
    if rule.action is not Action.LIMIT:
        return
    yield "counted", _counted(rule, entries)
    for item in rule.limits:
        yield "limit", limit_text(item.limit)
    notes = {
        "shadow: counts and reports, never rejects": rule.shadow,
        "quota mode": rule.quota,
        "countDenied: denied requests are charged too": rule.count_denied,
        "refunds: negative hits are applied": rule.refunds,
        f"replaces {', '.join(sorted(rule.replaces))}": bool(rule.replaces),
        f"rollout at {rule.rollout.percent if rule.rollout else 0} %": rule.rollout is not None,
    }
    yield from (("mode", note) for note, holds in notes.items() if holds)


def _counted(rule: Rule, entries: Entries) -> str:
    """The key that is counted: the request's values, but what a rule shares."""
    shared = rule.shared or (None,) * len(entries)
    return "one count for " + entries_text(
        tuple((key, value if common is None else common) for (key, value), common in zip(entries, shared, strict=True))
    )


def limit_text(limit: Limit) -> str:
    """A limit in words: `5 per 10s, SlidingWindow`."""
    window = duration_text(limit.window_us)
    if limit.calendar is not None:
        window = f"{limit.calendar.unit.value.lower()} in {limit.calendar.time_zone}"
    burst = f", burst {limit.burst}" if limit.algorithm is Algorithm.TOKEN_BUCKET else ""
    return f"{limit.requests} per {window}, {limit.algorithm.value}{burst}"
