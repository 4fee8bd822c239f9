"""`tidegate check`: ask a running service and show what it says, descriptor by descriptor."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ratelimit_service.addresses import InvalidAddress, parse_address
from ratelimit_service.cli.descriptors import DescriptorCommand, Entries, entries_text, parse_descriptors
from ratelimit_service.transport.client import CallFailed, RateLimitClient
from ratelimit_service.transport.tls import ClientTls, InvalidTls
from ratelimit_service.wire.grpc.status import GrpcCode
from ratelimit_service.wire.rls.messages import CurrentLimit, Descriptor, Request, Status, Unit, Verdict

_MAX_HITS: Final = 2**64 - 1
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(cls=DescriptorCommand)
@click.argument("entries", nargs=-1, metavar="KEY=VALUE… [--descriptor KEY=VALUE…]…")
@click.option("--domain", required=True, help="Domain, as Envoy's filter sends it.")
@click.option("--hits", type=click.IntRange(0, _MAX_HITS), help="Hits to charge; 0 only checks.  [default: 1]")
@click.option("--repeat", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How often to ask.")
@click.option(
    "--target",
    envvar="TIDEGATE_TARGET",
    default="127.0.0.1:8081",
    show_default=True,
    help="HOST:PORT or unix:PATH of the service (also TIDEGATE_TARGET).",
)
@click.option("--timeout", type=click.FloatRange(0.01, 600), default=3.0, show_default=True, help="Seconds to wait.")
@click.option("--tls-ca", type=_FILE, help="PEM file of CAs; turns TLS on.")
@click.option("--tls-cert", type=_FILE, help="PEM file of the client's certificate (mTLS).")
@click.option("--tls-key", type=_FILE, help="PEM file of the client's private key (mTLS).")
def check(
    *,
    entries: tuple[str, ...],
    domain: str,
    hits: int | None,
    repeat: int,
    target: str,
    timeout: float,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Ask a running service whether a request may pass, and count it.

    The entries of one descriptor are KEY=VALUE in the order in which Envoy sends them.
    Write --descriptor between the entries of several descriptors:

      tidegate check --domain shop.checkout user=ann --descriptor plan=gold method=POST

    Exits with 0 when the service answered, whatever the verdict, and with 1 when it did not.
    """
    if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and tls_ca is None):
        raise click.UsageError("--tls-cert and --tls-key go together, and with --tls-ca")
    try:
        # grpcio would dial what is left of a port above 65535 in 16 bits.
        parse_address(target)
    except InvalidAddress as error:
        raise click.BadParameter(str(error), param_hint="'--target'") from error
    descriptors = parse_descriptors(entries)
    request = Request(
        domain=domain.encode("utf-8", "surrogateescape"),
        descriptors=tuple(Descriptor(entries=each, hits=hits) for each in descriptors),
    )
    tls = None if tls_ca is None else ClientTls(tls_ca, tls_cert, tls_key)
    try:
        verdicts = asyncio.run(_ask(target, tls, request, repeat, timeout))
    except CallFailed as error:
        raise click.ClickException(_failure_text(target, error)) from error
    except InvalidTls as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    console.print(_table(descriptors, verdicts))
    for key, value in verdicts[-1].headers:
        console.print(Text(f"{key}: {value}"))
    console.print(_summary(verdicts))


async def _ask(target: str, tls: ClientTls | None, request: Request, repeat: int, timeout_s: float) -> list[Verdict]:
    async with RateLimitClient(target, tls) as client:
        return [await client.ask(request, timeout_s) for _ in range(repeat)]


def _failure_text(target: str, error: CallFailed) -> str:
    """What happened and, where the reason may be that nothing listens, what may help."""
    if error.code not in {GrpcCode.UNAVAILABLE, GrpcCode.DEADLINE_EXCEEDED}:
        return f"{target} answered {error}"
    return (
        f"no verdict from {target}: {error}\n"
        "Is a service running there? Start one with `tidegate serve --policies PATH`,\n"
        "or name another one with --target HOST:PORT. One that speaks TLS needs --tls-ca,\n"
        "and --tls-cert with --tls-key where it asks clients for a certificate."
    )


def _table(descriptors: Sequence[Entries], verdicts: Sequence[Verdict]) -> Table:
    table = Table()
    if len(verdicts) > 1:
        table.add_column("#", justify="right")
    table.add_column("descriptor")
    table.add_column("code")
    table.add_column("limit")
    table.add_column("remaining", justify="right")
    table.add_column("reset", justify="right")
    for number, verdict in enumerate(verdicts, start=1):
        for entries, status in zip(descriptors, verdict.statuses, strict=False):
            first = (Text(str(number)),) if len(verdicts) > 1 else ()
            table.add_row(*first, Text(entries_text(entries)), *_cells(status))
    return table


def _cells(status: Status) -> tuple[Text, ...]:
    return (
        _code(over=status.over),
        Text(_limit_text(status.limit)),
        Text("-" if status.limit is None and not status.remaining else str(status.remaining)),
        Text("-" if status.reset_s is None else f"{status.reset_s} s"),
    )


def _code(*, over: bool) -> Text:
    return Text("OVER_LIMIT", style="bold red") if over else Text("OK", style="green")


def _limit_text(limit: CurrentLimit | None) -> str:
    if limit is None:
        return "no limit"
    per = "" if limit.unit is Unit.UNKNOWN else f"/{limit.unit.name.lower()}"
    name = f" ({limit.name})" if limit.name else ""
    return f"{limit.requests}{per}{name}"


def _summary(verdicts: Sequence[Verdict]) -> Text:
    if len(verdicts) == 1:
        return Text("overall: ") + _code(over=verdicts[0].over)
    by_code = Counter(verdict.over for verdict in verdicts)
    return Text(f"overall: {by_code[False]} OK, {by_code[True]} OVER_LIMIT")
