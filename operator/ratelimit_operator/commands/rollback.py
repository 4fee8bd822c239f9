"""`tidegate rollback`: the sets that every replica ran, and the way back to one of them."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final, NoReturn

import click
import msgspec
from rich.console import Console
from rich.table import Table

from ratelimit_operator.cluster.access import Access, NoAccess
from ratelimit_operator.cluster.api_server import CONFIG_MAPS, ApiFailure, ApiServer
from ratelimit_operator.cluster.filter_keeper import SETTINGS_CONFIG_MAP
from ratelimit_operator.cluster.history import History
from ratelimit_operator.plan.history import KeptSet

_MANAGER: Final = "tidegate-rollback"
"""Field manager of the one key that is written."""


class _Settings(msgspec.Struct):
    data: dict[str, str] = {}


@click.command
@click.argument("version", default="")
@click.option("--end", is_flag=True, help="Give out what is applied again.")
@click.option("-n", "--namespace", default="tidegate-system", help="Namespace of the release.", show_default=True)
@click.option("--controller-name", default="tidegate", help="Name of the release.", show_default=True)
@click.option("--kubeconfig", default="", help="How to reach the API server.  [KUBECONFIG, else ~/.kube/config]")
def rollback(version: str, end: bool, namespace: str, controller_name: str, kubeconfig: str) -> None:
    """Go back to the kept set VERSION until `--end`, whatever is applied meanwhile; without VERSION, list the sets.

    Policies whose present form is not in that set say so in their status.
    """
    if version and end:
        raise click.UsageError("VERSION and --end are two different wishes")
    try:
        asyncio.run(_act(Access(kubeconfig), namespace, controller_name, version, end=end))
    except (NoAccess, ApiFailure) as error:
        _refuse(str(error))


async def _act(access: Access, namespace: str, controller: str, version: str, *, end: bool) -> None:
    api = ApiServer(access)
    history = History(api, namespace, controller, 0, 0.0, current=lambda: None, in_use=str)
    try:
        if end:
            await _ask_for(api, namespace, "")
            click.echo("what is applied is given out again")
        elif version:
            kept = await history.read(version)
            if kept is None:
                _refuse(f"no set of version {version} is kept; `tidegate rollback` lists those that are")
            await _ask_for(api, namespace, version)
            click.echo(f"rolled back to {version}: {kept.policy_count} policies; `tidegate rollback --end` ends it")
        else:
            _show(await history.sets(), await _asked_for(api, namespace))
    finally:
        api.close()


async def _asked_for(api: ApiServer, namespace: str) -> str:
    try:
        body = await api.get(CONFIG_MAPS.url(namespace, SETTINGS_CONFIG_MAP))
    except ApiFailure as failure:
        if failure.code != 404:
            raise
        return ""
    return msgspec.json.decode(body, type=_Settings).data.get("rollback", "")


async def _ask_for(api: ApiServer, namespace: str, version: str) -> None:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SETTINGS_CONFIG_MAP, "namespace": namespace},
        # Empty means none, whoever wrote the key before.
        "data": {"rollback": version},
    }
    await api.apply(CONFIG_MAPS.url(namespace, SETTINGS_CONFIG_MAP), body, _MANAGER)


def _show(kept: list[KeptSet], asked: str) -> None:
    table = Table("version", "kept at", "")
    for each in reversed(kept):
        at = f"{each.kept_at[:4]}-{each.kept_at[4:6]}-{each.kept_at[6:11]}:{each.kept_at[11:13]}:{each.kept_at[13:]}"
        table.add_row(each.version, at, "rolled back to" if each.version == asked else "")
    Console().print(table)


def _refuse(problem: str) -> NoReturn:
    click.echo(problem, err=True)
    sys.exit(2)
