"""The `tidegate` command and its subcommands.

Each subcommand is imported when it is called: `serve` must not pay the memory of the tables that `check` draws.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Final

import click

from ratelimit_service.cli import lean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_COMMANDS: Final = {
    "serve": "ratelimit_service.cli.serve",
    "check": "ratelimit_service.cli.check",
    "validate": "ratelimit_service.cli.validate",
    "explain": "ratelimit_service.cli.explain",
    "render": "ratelimit_service.cli.render",
    "counters": "ratelimit_service.cli.counters",
    "reset": "ratelimit_service.cli.reset",
    "migrate": "ratelimit_service.cli.migrate",
}
"""Subcommand → module that defines a click command of the same name."""

_MORE: Final = "tidegate.commands"
"""Entry-point group of commands that other packages bring: those that ask the API server come with the operator."""


class _Commands(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of help."""
        return [*_COMMANDS, *sorted(_brought())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None: there is none (click then says so and exits with 2)."""
        if cmd_name not in _COMMANDS:
            brought = _brought().get(cmd_name)
            return None if brought is None else brought.load()
        # Read when grpc is imported: its core writes lines of its own to standard error, in no format of ours and one
        # for each broken handshake. What matters of them is in the errors that it raises.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        if cmd_name == "serve":
            lean.import_structlog()
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command


def _brought() -> dict[str, EntryPoint]:
    import importlib.metadata  # noqa: PLC0415 - two megabytes that `serve` does without

    return {each.name: each for each in importlib.metadata.entry_points(group=_MORE)}


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidegate", message="tidegate %(version)s")
def main() -> None:
    """Rate limits for Envoy and Istio: serve policies, ask a running service, check policy files."""
