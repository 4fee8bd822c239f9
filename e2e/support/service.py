"""The real `tidegate serve` on free loopback ports."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.support.processes import Process, running

Manifest = dict[str, object]


class Service:
    """A service that is ready, its addresses and its folder of policies."""

    def __init__(self, process: Process, policies: Path, grpc: str, admin: str) -> None:
        self.process = process
        self.policies = policies
        self.grpc = grpc
        self.admin = admin

    @property
    def grpc_port(self) -> int:
        return int(self.grpc.rpartition(":")[2])

    def page(self, path: str) -> str:
        """Body of an admin page."""
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as response:
            return str(response.read().decode())

    def metric(self, name: str, labels: str = "") -> float:
        """Sum of the series of that name whose labels contain the text."""
        found = re.findall(rf"^{name}({{[^}}]*}})? ([^ \n]+)$", self.page("/metrics"), re.MULTILINE)
        return sum(float(value) for series, value in found if labels in series)

    def write(self, manifests: Sequence[Manifest], name: str = "policies.yaml") -> None:
        """Replace the policies atomically, as `kubectl` and editors do."""
        write_policies(self.policies, manifests, name)


def write_policies(folder: Path, manifests: Sequence[Manifest], name: str = "policies.yaml") -> None:
    """Write manifests as one multi-document file (JSON is YAML) by an atomic rename."""
    draft = folder / f".{name}.draft"
    draft.write_text("\n---\n".join(json.dumps(manifest, indent=1) for manifest in manifests), encoding="utf-8")
    draft.rename(folder / name)


def command(policies: Path, transport: str, flags: Sequence[str] = ()) -> list[str]:
    """The command line of a service on free loopback ports."""
    return [
        sys.executable, "-m", "ratelimit_service.cli", "serve", "--policies", str(policies),
        "--transport", transport, "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain-delay", "0s", *flags,
    ]  # fmt: skip


@contextmanager
def service(
    folder: Path, manifests: Sequence[Manifest], transport: str, flags: Sequence[str] = ()
) -> Iterator[Service]:
    """A ready service that is gone when the block ends."""
    policies = folder / "policies"
    policies.mkdir(parents=True, exist_ok=True)
    write_policies(policies, manifests)
    with running(command(policies, transport, flags), folder / "service.log") as process:
        grpc, admin = process.await_("the ready line", lambda: addresses(process.output()))
        yield Service(process, policies, grpc, admin)


def addresses(output: str) -> tuple[str, str] | None:
    """Addresses of gRPC and admin out of the ready line, None before it is there."""
    grpc = re.search(r"grpc\W+((?:\d+\.){3}\d+:\d+|unix:\S+)", output)
    admin = re.search(r"admin\W+((?:\d+\.){3}\d+:\d+)", output)
    return (grpc[1], admin[1]) if grpc and admin else None
