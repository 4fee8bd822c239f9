"""How `tidegate check` shows verdicts, and what it says when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from ratelimit_service.cli import check as module
from ratelimit_service.cli.main import main
from ratelimit_service.transport.client import CallFailed
from ratelimit_service.wire.grpc.status import GrpcCode
from ratelimit_service.wire.rls.messages import CurrentLimit, Status, Unit, Verdict

ANN = ((b"user", b"ann"),)


def drawn(*verdicts: Verdict) -> list[list[str]]:
    """Cells of the table's rows, header first."""
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123 — written nowhere
    with console.file:
        console.print(module._table([ANN], verdicts))
        text = console.export_text()
    rows = [line for line in text.splitlines() if line.startswith(("┃", "│"))]
    return [[cell.strip() for cell in row.strip("┃│").replace("┃", "│").split("│")] for row in rows]


def test_a_verdict_is_a_row_per_descriptor() -> None:
    """Code, limit with unit and name, remaining, reset."""
    status = Status(over=False, limit=CurrentLimit(5, Unit.MINUTE, "per-user"), remaining=4, reset_s=12)

    assert drawn(Verdict(over=False, statuses=(status,))) == [
        ["descriptor", "code", "limit", "remaining", "reset"],
        ["user=ann", "OK", "5/minute (per-user)", "4", "12 s"],
    ]


def test_several_verdicts_are_numbered() -> None:
    """`--repeat` shows each answer."""
    over = Status(over=True, limit=CurrentLimit(5, Unit.UNKNOWN), remaining=0, reset_s=None)
    rows = drawn(Verdict(over=True, statuses=(over,)), Verdict(over=True, statuses=(over,)))

    assert rows[1:] == [
        ["1", "user=ann", "OVER_LIMIT", "5", "0", "-"],
        ["2", "user=ann", "OVER_LIMIT", "5", "0", "-"],
    ]


def test_no_limit_is_said_so() -> None:
    """Neither a limit nor a count nor a reset is made up."""
    assert drawn(Verdict(over=False, statuses=(Status(over=False),)))[1] == ["user=ann", "OK", "no limit", "-", "-"]


def test_the_summary_counts_codes() -> None:
    """One verdict: its code; several: how many of each."""
    good, bad = Verdict(over=False, statuses=()), Verdict(over=True, statuses=())

    assert module._summary([bad]).plain == "overall: OVER_LIMIT"
    assert module._summary([good]).plain == "overall: OK"
    assert module._summary([good, bad, bad]).plain == "overall: 1 OK, 2 OVER_LIMIT"


def test_nobody_at_the_target_is_told_with_what_may_help() -> None:
    """Exit code 1, the address, and what to do."""
    done = CliRunner().invoke(main, ["check", "--domain", "d", "--target", "127.0.0.1:1", "--timeout", "2", "a=b"])

    assert done.exit_code == 1
    assert "no verdict from 127.0.0.1:1: UNAVAILABLE" in done.output
    assert "tidegate serve --policies PATH" in done.output


def test_an_error_of_the_service_is_told_as_it_is() -> None:
    """Advice about a missing service would mislead."""
    text = module._failure_text("h:1", CallFailed(GrpcCode.INVALID_ARGUMENT, "domain is empty"))

    assert text == "h:1 answered INVALID_ARGUMENT: domain is empty"


@pytest.mark.parametrize(
    "flags", [["--tls-cert", __file__, "--tls-ca", __file__], ["--tls-cert", __file__, "--tls-key", __file__]]
)
def test_half_a_client_certificate_is_a_usage_error(flags: list[str]) -> None:
    """A certificate needs its key, and TLS."""
    done = CliRunner().invoke(main, ["check", "--domain", "d", "a=b", *flags])

    assert done.exit_code == 2
    assert "go together" in done.output


def test_a_ca_that_is_no_certificate_is_told(tmp_path: Path) -> None:
    """By its name, not by what grpc's core makes of it."""
    ca = tmp_path / "ca.pem"
    ca.write_text("no PEM")
    done = CliRunner().invoke(
        main, ["check", "--domain", "d", "--target", "127.0.0.1:1", "--tls-ca", str(ca), "--timeout", "1", "a=b"]
    )

    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {ca}: no PEM certificates")


@pytest.mark.parametrize("target", ["127.0.0.1:99999", "nonsense", "127.0.0.1:" + "9" * 5_000], ids=str.__len__)
def test_a_target_that_is_no_address_is_a_usage_error(target: str) -> None:
    """Port 99999 would be dialled as 34463, where another service may listen."""
    done = CliRunner().invoke(main, ["check", "--domain", "d", "--target", target, "a=b"])

    assert done.exit_code == 2
    assert "is not an address; write HOST:PORT" in done.output


def test_a_ca_that_cannot_be_read_is_told() -> None:
    """With the system's reason; this file can be opened and not be read."""
    done = CliRunner().invoke(main, ["check", "--domain", "d", "--tls-ca", "/proc/self/mem", "a=b"])

    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
