"""Replicas of the service that follow operators over xDS."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.support.processes import Process, running
from e2e.support.service import Service, addresses


class Replica(Service):
    """A service without a folder of policies."""

    def ask(self, domain: str, **entries: str) -> int:
        """200 or 429, as `/json` answers for one descriptor; 503: nothing is configured."""
        body = {
            "domain": domain,
            "descriptors": [{"entries": [{"key": key, "value": value} for key, value in entries.items()]}],
        }
        request = urllib.request.Request(f"http://{self.admin}/json", json.dumps(body).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def admits(self, domain: str, most: int = 20, **entries: str) -> int:
        """How many of the next calls are admitted, `most` at the most."""
        for count in range(most):
            if self.ask(domain, **entries) != 200:
                return count
        return most

    @property
    def is_ready(self) -> bool:
        try:
            return bool(self.page("/readyz"))
        except urllib.error.HTTPError:
            return False


@contextmanager
def replica(folder: Path, name: str, operators: Sequence[str], *flags: str) -> Iterator[Replica]:
    """A replica that listens and is gone when the block ends; `operators`: HOST:PORT each."""
    command = [
        sys.executable, "-m", "ratelimit_service.cli", "serve", "--policies", f"xds://{','.join(operators)}",
        "--xds-node", name, "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain-delay", "0s", *flags,
    ]  # fmt: skip
    with running(command, folder / f"{name}.log") as process:
        yield _await(process, folder)


def _await(process: Process, folder: Path) -> Replica:
    grpc, admin = process.await_("the ready line", lambda: addresses(process.output()), timeout_s=60)
    return Replica(process, folder, grpc, admin)
