"""`tidegate counters`: what is used of the limits of a running service."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ratelimit_service.cli.admin_target import admin_option, ask_page, read_answer, timeout_option
from ratelimit_service.policy.quantities import duration_text
from ratelimit_service.transport.admin_counters import MOST_SUMMED, CounterRow, LimitUsage, UsageSummary

_PAGE: int = 100


@click.command
@click.option("--domain", required=True, help="Domain, as Envoy's filter sends it.")
@click.option("--keys", "page", type=click.IntRange(1, 1_000_000), help="List counters, a hundred a page: this page.")
@click.option("--top", type=click.IntRange(0, 1_000), default=5, show_default=True, help="Keys shown for each limit.")
@admin_option
@timeout_option
def counters(*, domain: str, page: int | None, top: int, admin: str, timeout: float) -> None:
    """Show what is used of the limits of a domain: a row for each limit, and the keys that use the most.

    Shared counts are those of all replicas, with what each of them holds in hand. With --keys 1, 2, … the counters
    are listed one by one.
    """
    name = domain.encode("utf-8", "surrogateescape")
    console = Console()
    if page is None:
        fields = [("domain", name), ("by", b"limit"), ("top", b"%d" % top)]
        summary = read_answer(admin, ask_page(admin, "GET", "/counters", fields, timeout, 200), UsageSummary)
        _show_summary(console, domain, summary)
        return
    fields = [("domain", name), ("page", b"%d" % (page - 1))]
    rows = read_answer(admin, ask_page(admin, "GET", "/counters", fields, timeout, 200), list[CounterRow])
    if not rows:
        console.print(Text(f"no live counters in domain {domain} on page {page}"))
        return
    console.print(_keys_table(rows))
    if len(rows) >= _PAGE:
        console.print(Text(f"the next hundred: --keys {page + 1}"))


def _show_summary(console: Console, domain: str, summary: UsageSummary) -> None:
    if not summary.limits:
        console.print(Text(f"no live counters in domain {domain}"))
        return
    console.print(_limits_table(summary.limits))
    top = [row for limit in summary.limits for row in limit.top]
    if top:
        console.print(_keys_table(top))
    if not summary.whole:
        console.print(Text(f"only the first {MOST_SUMMED} counters were looked at", style="yellow"))


def _limits_table(limits: Sequence[LimitUsage]) -> Table:
    table = Table()
    for name in ("rule", "limit"):
        table.add_column(name)
    for name in ("keys", "used", "exhausted"):
        table.add_column(name, justify="right")
    for each in limits:
        table.add_row(Text(each.rule or "-"), Text(_limit_text(each)), str(each.keys), str(each.used), _exhausted(each))
    return table


def _limit_text(each: LimitUsage) -> str:
    if each.requests is None or each.algorithm is None:
        return "-"
    window = f" per {duration_text(each.window_us)}" if each.window_us else " per calendar window"
    return f"{each.requests}{window}, {each.algorithm}"


def _exhausted(each: LimitUsage) -> Text:
    return Text(str(each.exhausted), style="bold red" if each.exhausted else "")


def _keys_table(rows: Sequence[CounterRow]) -> Table:
    table = Table()
    for name in ("rule", "key"):
        table.add_column(name)
    for name in ("used", "remaining", "full again in"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            Text(row.rule or "-"),
            Text(" ".join(row.key) or "(one for all)"),
            str(row.used),
            "-" if row.remaining is None else str(row.remaining),
            "never" if row.wait_us is None else f"{row.wait_us / 1_000_000:.1f} s",
        )
    return table
