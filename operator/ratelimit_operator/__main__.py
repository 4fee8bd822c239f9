"""`tidegate-operator`, and `python -m ratelimit_operator`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import click

from ratelimit_operator.app import Operator
from ratelimit_operator.cluster.access import Access, NoAccess
from ratelimit_operator.cluster.api_server import ApiFailure, ApiServer
from ratelimit_operator.cluster.filter_keeper import CannotBeTold, detach
from ratelimit_operator.flags import FLAGS, InvalidOptions, Options, decode_options
from ratelimit_operator.logs import configure
from ratelimit_operator.xds.server import CannotListen
from ratelimit_service.flags import Flag

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_BAD_FLAGS: Final = 2
"""Exit code of wrong flags, and of addresses that cannot be bound."""


def _options(command: Command) -> Command:
    """Give the command an option per flag, each also by environment."""
    for flag in reversed(FLAGS):
        command = _option(flag)(command)
    return command


def _option(flag: Flag) -> Callable[[Command], Command]:
    more: dict[str, Any] = {"multiple": True} if flag.separator else {}
    if flag.switch:
        more = {"is_flag": False, "flag_value": "true"}
    default = f"  [default: {flag.default}]" if flag.default and not flag.switch else ""
    shown = f"{flag.help}{default}  [env: {flag.environment[0]}]"
    return click.option(flag.name, flag.name.removeprefix("--").replace("-", "_"), type=str, help=shown, **more)


def _texts(given: dict[str, str | tuple[str, ...] | None]) -> dict[str, Sequence[str]]:
    """Texts by flag: the command line's, else the environment's."""
    found: dict[str, Sequence[str]] = {}
    for flag in FLAGS:
        value = given.get(flag.name.removeprefix("--").replace("-", "_"))
        written = os.environ.get(flag.environment[0], "")
        if value:
            found[flag.name] = (value,) if isinstance(value, str) else value
        elif written:
            found[flag.name] = [each.strip() for each in written.split(flag.separator)] if flag.separator else [written]
    return found


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidegate", message="tidegate-operator %(version)s")
@_options
@click.pass_context
def main(context: click.Context, /, **given: str | tuple[str, ...] | None) -> None:
    """Watch RateLimitPolicies and CacheProfiles, give them to the replicas of the service, and say so in their status.

    Runs until SIGTERM or SIGINT. Wrong flags: all problems are told, exit code 2.
    """
    try:
        context.obj = decode_options(_texts(given))
    except InvalidOptions as error:
        _refuse(error.problems)
    if context.invoked_subcommand is None:
        _run(context.obj)


@main.command("detach")
@click.pass_obj
def detach_command(options: Options) -> None:
    """Take away everything that makes Envoy ask, so that uninstalling leaves it answering 200.

    An operator that runs is told to write no more (`attachment: Off` in the ConfigMap tidegate-settings).
    """
    try:
        removed = asyncio.run(_detach(options))
    except (NoAccess, ApiFailure, CannotBeTold) as error:
        _refuse([str(error)])
    except TimeoutError:
        _refuse(["EnvoyFilters come back: an operator writes them; end it, or give it --istio=false"])
    for name in removed:
        click.echo(f"removed EnvoyFilter {name}")
    click.echo(f"detached: {len(removed)} removed, none left")


async def _detach(options: Options) -> list[str]:
    api = ApiServer(Access(options.kubeconfig))
    try:
        return await detach(
            api, options.controller_name, options.scope.release_namespace, places=options.attaching_places
        )
    finally:
        api.close()


def _run(options: Options) -> None:
    configure(options.log_format, options.log_level, sys.stderr)

    def ready(xds: str, admin: str) -> None:
        click.echo(f"tidegate-operator is running: xds {xds} admin {admin}")

    try:
        asyncio.run(Operator(options).run(ready))
    except (NoAccess, CannotListen, OSError) as error:
        _refuse([str(error)])


def _refuse(problems: Sequence[str]) -> NoReturn:
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(EXIT_BAD_FLAGS)


if __name__ == "__main__":
    main()
