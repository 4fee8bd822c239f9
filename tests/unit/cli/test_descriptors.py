"""`key=value…` and `--descriptor` on the command line."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from ratelimit_service.cli.descriptors import DescriptorCommand, entries_text, parse_descriptors


@click.command(cls=DescriptorCommand)
@click.argument("entries", nargs=-1)
@click.option("--domain")
def echo(entries: tuple[str, ...], domain: str | None) -> None:
    """Print what was understood."""
    click.echo(f"{domain} {parse_descriptors(entries)!r}")


def understood(*arguments: str) -> str:
    done = CliRunner().invoke(echo, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output.strip()


@pytest.mark.parametrize("separator", ["--", "--descriptor"])
def test_descriptors_are_parted_by_a_separator(separator: str) -> None:
    """Options may stand anywhere, also after a separator."""
    arguments = ("user=ann", "path=/", separator, "plan=gold", "--domain", "shop")

    assert understood(*arguments) == "shop (((b'user', b'ann'), (b'path', b'/')), ((b'plan', b'gold'),))"


def test_no_entries_are_one_descriptor_without_entries() -> None:
    """Envoy can send that too, so it can be asked."""
    assert parse_descriptors(()) == ((),)


def test_values_may_be_empty_and_hold_equals_signs_and_any_bytes() -> None:
    """The first `=` parts key and value; bytes of a shell that are no UTF-8 arrive as they were typed."""
    assert parse_descriptors(("a=", "b=c=d", "e=\udcff")) == (((b"a", b""), (b"b", b"c=d"), (b"e", b"\xff")),)


@pytest.mark.parametrize("argument", ["user", "=ann", ""])
def test_what_is_no_entry_is_refused_by_name(argument: str) -> None:
    """The message quotes it."""
    with pytest.raises(click.BadParameter, match="write key=value") as caught:
        parse_descriptors((argument,))

    assert repr(argument) in str(caught.value)


def test_an_unknown_flag_is_an_error_of_click() -> None:
    """The separators alone are hidden from it."""
    done = CliRunner().invoke(echo, ["user=ann", "--descriptors"])

    assert done.exit_code == 2
    assert "No such option" in done.output


def test_entries_are_shown_with_escapes_for_what_is_no_text() -> None:
    """A terminal never gets raw bytes."""
    assert entries_text(((b"user", b"bo\xff"), (b"path", b""))) == "user=bo\\xff path="
    assert entries_text(()) == "(no entries)"
