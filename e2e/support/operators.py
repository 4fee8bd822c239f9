"""The real `tidegate-operator` on free loopback ports, as the service account of `crds/rbac.yaml`."""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.support.api_server import ApiServer
from e2e.support.processes import Process, running

QUICK = (
    "--debounce", "20ms", "--list-interval", "5s", "--lease-duration", "4s", "--lease-renew", "3s",
    "--lease-retry", "200ms", "--bootstrap-delay", "100ms",
)  # fmt: skip
"""Flags that shorten every wait."""


class Operator:
    """A running operator and its addresses."""

    def __init__(self, process: Process, xds: str, admin: str) -> None:
        self.process = process
        self.xds = xds
        self.admin = admin

    def page(self, path: str) -> tuple[int, str]:
        """Status code and text of an admin page."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @property
    def is_ready(self) -> bool:
        return self.page("/readyz")[0] == 200

    def metric(self, name: str, labels: str = "") -> float:
        """Sum of the series of that name whose labels contain the text."""
        found = re.findall(rf"^tidegate_operator_{name}({{[^}}]*}})? (\S+)$", self.page("/metrics")[1], re.MULTILINE)
        return sum(float(value) for series, value in found if labels in series)

    @property
    def leads(self) -> bool:
        return self.metric("leader") == 1


@contextmanager
def operator(
    api: ApiServer, folder: Path, *flags: str, name: str = "operator", server: str = "", quick: Sequence[str] = QUICK
) -> Iterator[Operator]:
    """An operator that runs and is gone when the block ends; `server`: URL of a proxy before the API server."""
    command = [
        sys.executable, "-m", "ratelimit_operator", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0",
        "--kubeconfig", str(api.kubeconfig("operator", server)), "--identity", name, *quick, *flags,
    ]  # fmt: skip
    with running(command, folder / f"{name}.log") as process:
        xds, admin = process.await_("the running line", lambda: _addresses(process.output()), timeout_s=60)
        yield Operator(process, xds, admin)


def _addresses(output: str) -> tuple[str, str] | None:
    found = re.search(r"is running: xds (\S+) admin (\S+)\n", output)
    return (found[1], found[2]) if found else None
