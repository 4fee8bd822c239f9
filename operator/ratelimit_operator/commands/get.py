"""`tidegate get policies`: what runs where, out of the status of each policy."""

from __future__ import annotations

import asyncio
import sys

import click
from rich.console import Console
from rich.table import Table

from ratelimit_operator.api.conditions import ConditionStatus
from ratelimit_operator.api.objects import observe_policy
from ratelimit_operator.cluster.access import Access, NoAccess
from ratelimit_operator.cluster.api_server import POLICIES, ApiFailure, ApiServer
from ratelimit_operator.plan.world import ObservedPolicy


@click.group
def get() -> None:
    """Show what the API server holds."""


@get.command
@click.option("-n", "--namespace", default="", help="Only policies of this namespace.")
@click.option("--kubeconfig", default="", help="How to reach the API server.  [KUBECONFIG, else ~/.kube/config]")
def policies(namespace: str, kubeconfig: str) -> None:
    """Every policy with its condition, replicas and version; exits with 1 where one is not ready."""
    try:
        found = asyncio.run(_read(Access(kubeconfig), namespace))
    except (NoAccess, ApiFailure) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    table = Table("policy", "domain", "ready", "replicas", "version", "why")
    rows = [_row(each) for each in sorted(found, key=lambda each: each.key)]
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    sys.exit(0 if all(row[2] == ConditionStatus.TRUE.value for row in rows) else 1)


async def _read(access: Access, namespace: str) -> list[ObservedPolicy]:
    api = ApiServer(access)
    try:
        return [observe_policy(each) for each in await api.list_objects(POLICIES, namespace) or ()]
    finally:
        api.close()


def _row(policy: ObservedPolicy) -> tuple[str, str, str, str, str, str]:
    """Cells of one policy; what nobody has written yet is `Unknown`."""
    status = policy.status
    ready = next((each for each in status.conditions if each.type == "Ready"), None)
    is_current = ready is not None and ready.observed_generation == policy.generation
    state = ready.status.value if ready is not None and is_current else ConditionStatus.UNKNOWN.value
    return (
        policy.key,
        status.effective.domain if status.effective is not None else "",
        state,
        status.distribution.summary if status.distribution is not None else "",
        status.distribution.version if status.distribution is not None else "",
        "" if ready is None or state == ConditionStatus.TRUE.value else ready.message,
    )
