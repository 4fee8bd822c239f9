"""The cluster as a person meets it: kubectl and helm, with their errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

_Found = TypeVar("_Found")

# A kubectl of the user's own comes first; the one that is built beside the API server is there anyway.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin:{Path.home() / '.cache' / 'tidegate' / 'bin'}"


class CommandFailed(Exception):
    """A command ended with an error; the message is its output."""


class Cluster(msgspec.Struct, frozen=True):
    """A cluster that may be used freely.

    Attributes:
        kubeconfig: How to reach it.
        helm: The binary.
    """

    kubeconfig: str
    helm: str

    def run(self, *command: str, stdin: str | None = None, timeout_s: float = 180) -> str:
        """Run a command that speaks to the cluster; gives what it printed.

        Raises:
            CommandFailed: It ended with an error or took too long.
        """
        environment = {**os.environ, "KUBECONFIG": self.kubeconfig, "PATH": PATH}
        try:
            done = subprocess.run(
                command, input=stdin, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{' '.join(command)}: nothing after {timeout_s:g} s") from error
        if done.returncode:
            raise CommandFailed(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 180) -> str:
        """Run kubectl."""
        return self.run("kubectl", *arguments, stdin=stdin, timeout_s=timeout_s)

    def apply(self, manifest: str) -> str:
        """Apply manifests."""
        return self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)

    def get(self, *arguments: str) -> dict:
        """One object, or a list of them."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def release(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run helm."""
        return self.run(self.helm, *arguments, timeout_s=timeout_s)

    def eventually(self, what: str, look: Callable[[], _Found | None], within_s: float = 90) -> _Found:
        """Poll until `look` finds something that is true.

        Raises:
            AssertionError: It never did; the message says what was waited for.
        """
        deadline = time.monotonic() + within_s
        last = ""
        while time.monotonic() < deadline:
            try:
                found = look()
            except CommandFailed as error:
                found, last = None, str(error)
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(f"waited {within_s:g} s for {what}\n{last}\n{self.picture()}")

    def picture(self) -> str:
        """Pods and latest events, for a message."""
        pods = self.kubectl("get", "pods", "-A", "-o", "wide")
        events = self.kubectl("get", "events", "-A", "--sort-by=.lastTimestamp")
        return pods + "\n".join(events.splitlines()[-15:])


def missing_parts(node: Path) -> Sequence[str]:
    """What a local node needs and this machine lacks."""
    parts = ("containerd", "runc", "iptables", "conntrack", "mmdebstrap", "kubectl", "openssl", "ip")
    missing = [part for part in parts if shutil.which(part, path=PATH) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not node.exists():
        missing.append(str(node))
    return missing
