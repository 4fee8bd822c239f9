"""`tidegate diff`: what applying these files would change in the cluster, rule by rule."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from ratelimit_operator.api.objects import observe_policy
from ratelimit_operator.cluster.access import Access, NoAccess
from ratelimit_operator.cluster.api_server import POLICIES, ApiFailure, ApiServer
from ratelimit_operator.commands.files import read_files
from ratelimit_operator.plan.differences import FieldChange, Kind, PolicyChange, policy_change
from ratelimit_service.policy.model import RateLimitPolicy

_STYLES = {Kind.ADDED: "green", Kind.CHANGED: "yellow", Kind.REMOVED: "red"}
_SIGNS = {Kind.ADDED: "+", Kind.CHANGED: "~", Kind.REMOVED: "-"}


@click.command
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=click.Path(exists=True, path_type=Path))
@click.option("--kubeconfig", default="", help="How to reach the API server.  [KUBECONFIG, else ~/.kube/config]")
def diff(paths: tuple[Path, ...], kubeconfig: str) -> None:
    """Compare the policies of files and folders with those that the API server holds.

    Policies that are in the cluster only are not told: `kubectl apply` leaves them alone.
    Exits with 0 where nothing would change, 1 where something would, 2 where it cannot be said.
    """
    wanted = [each for each in read_files(paths) if isinstance(each, RateLimitPolicy)]
    try:
        held = asyncio.run(_read_cluster(Access(kubeconfig)))
    except (NoAccess, ApiFailure) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    changes = [change for each in wanted if (change := policy_change(held.get(_key(each)), each)) is not None]
    console = Console(soft_wrap=True)
    for change in changes:
        for line in change_lines(change):
            console.print(line)
    if not changes:
        console.print(Text("nothing would change", style="green"))
    sys.exit(1 if changes else 0)


def _key(policy: RateLimitPolicy) -> str:
    return f"{policy.metadata.namespace}/{policy.metadata.name}"


async def _read_cluster(access: Access) -> dict[str, RateLimitPolicy | None]:
    api = ApiServer(access)
    try:
        observed = [observe_policy(each) for each in await api.list_objects(POLICIES, "") or ()]
    finally:
        api.close()
    return {each.key: each.manifest for each in observed}


def change_lines(change: PolicyChange) -> Sequence[Text]:
    """How a change is shown: a line for the policy, one for each rule and field."""
    lines = [_line(change.kind, change.key, 0)]
    lines += [_field_line(field, 1) for field in change.fields]
    for rule in change.rules:
        note = "  (counts begin anew)" if rule.counts_anew else ""
        lines.append(_line(rule.kind, f"rule {rule.name}{note}", 1))
        lines += [_field_line(field, 2) for field in rule.fields]
    return lines


def _line(kind: Kind, text: str, depth: int) -> Text:
    return Text(f"{'  ' * depth}{_SIGNS[kind]} {text}", style=_STYLES[kind])


def _field_line(field: FieldChange, depth: int) -> Text:
    return Text(f"{'  ' * depth}  {field.path}: {_shown(field.before)} → {_shown(field.after)}")


def _shown(value: object) -> str:
    return "(not set)" if value is None else str(value)
