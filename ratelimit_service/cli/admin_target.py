"""What the commands that ask a service's admin pages have in common: the target, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from ratelimit_service.addresses import Address, InvalidAddress, parse_address
from ratelimit_service.transport.admin_client import AdminRefused, AdminUnreachable, ask_admin, body_of

Command = TypeVar("Command", bound=Callable[..., Any])
Answer = TypeVar("Answer")

admin_option = click.option(
    "--admin",
    envvar="TIDEGATE_ADMIN_TARGET",
    default="127.0.0.1:8080",
    show_default=True,
    help="HOST:PORT of the service's admin pages (also TIDEGATE_ADMIN_TARGET).",
)
timeout_option = click.option(
    "--timeout", type=click.FloatRange(0.01, 600), default=10.0, show_default=True, help="Seconds to wait."
)


def ask_page(
    admin: str, method: str, path: str, fields: list[tuple[str, bytes]], timeout_s: float, *good: int
) -> bytes:
    """The body of a page whose status is one of the good ones.

    Raises:
        click.ClickException: With what happened and what may help.
    """
    address = _address(admin)
    try:
        return body_of(ask_admin(address, method, path, fields, timeout_s), *good)
    except AdminUnreachable as error:
        raise click.ClickException(
            f"no answer from the admin pages at {admin}: {error}\n"
            "Is a service running there? `tidegate serve` says on which address its admin pages are;\n"
            "name it with --admin HOST:PORT."
        ) from error
    except AdminRefused as error:
        raise click.ClickException(_refusal_text(admin, path, error)) from error


def read_answer(admin: str, body: bytes, form: type[Answer]) -> Answer:
    """An answer's JSON as what it should be.

    Raises:
        click.ClickException: It is something else: another program listens there, or another release.
    """
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"what {admin} answered is none of our pages: {error}") from error


def _address(admin: str) -> Address:
    try:
        address = parse_address(admin)
    except InvalidAddress as error:
        raise click.BadParameter(str(error), param_hint="'--admin'") from error
    if address.unix_path:
        raise click.BadParameter("is HOST:PORT", param_hint="'--admin'")
    return address


def _refusal_text(admin: str, path: str, error: AdminRefused) -> str:
    if error.status == 404 and error.message.startswith("no such page"):
        return f"{admin} has no page {path}: another program, or an older release"
    return f"{admin} answered {error}"
