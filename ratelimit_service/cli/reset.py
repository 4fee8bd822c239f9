"""`tidegate reset`: begin the counters of a descriptor anew, in a running service."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ratelimit_service.cli.admin_target import admin_option, ask_page, read_answer, timeout_option
from ratelimit_service.cli.descriptors import DescriptorCommand, parse_descriptors
from ratelimit_service.limiter.resetting import ResetAnswer, ResetCounter


@click.command(cls=DescriptorCommand)
@click.argument("entries", nargs=-1, metavar="KEY=VALUE… [--descriptor KEY=VALUE…]…")
@click.option("--domain", required=True, help="Domain, as Envoy's filter sends it.")
@admin_option
@timeout_option
def reset(*, entries: tuple[str, ...], domain: str, admin: str, timeout: float) -> None:
    """Begin anew what a request with these descriptors is counted in, all limits of its rule.

    Over a shared store this is so on every replica within a second; what replicas hold in hand at that moment may still
    be spent. Exits with 1 where nothing is counted for a descriptor, and where the store did not answer.
    """
    name = domain.encode("utf-8", "surrogateescape")
    counters: list[ResetCounter] = []
    for descriptor in parse_descriptors(entries):
        fields = [("domain", name), *(("entry", key + b"=" + value) for key, value in descriptor)]
        body = ask_page(admin, "POST", "/reset", fields, timeout, 200, 404, 503)
        counters += read_answer(admin, body, ResetAnswer).counters
    console = Console()
    console.print(_table(counters))
    if any(counter.key and counter.counted is None for counter in counters):
        raise click.ClickException("the store did not answer: those counters may be begun anew, or not; try again")
    if not all(counter.key for counter in counters):
        sys.exit(1)


def _table(counters: list[ResetCounter]) -> Table:
    table = Table()
    for name in ("descriptor", "rule", "key", "now"):
        table.add_column(name)
    for counter in counters:
        table.add_row(
            Text(" ".join(counter.descriptor)),
            Text(counter.rule or "-"),
            Text(" ".join(counter.key)),
            _outcome(counter),
        )
    return table


def _outcome(counter: ResetCounter) -> Text:
    if not counter.key:
        return Text(f"nothing is counted: {counter.what}", style="yellow")
    if counter.counted is None:
        return Text("not known", style="bold red")
    return Text("begun anew", style="green") if counter.counted else Text("nothing was counted")
