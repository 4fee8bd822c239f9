"""Back to a set that every replica ran, and forward again, as a user does it."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from e2e.api.test_replicas import limit, programmed
from e2e.api.test_status import awaited, policy
from e2e.support.api_server import ApiServer
from e2e.support.kube import Kube, condition
from e2e.support.operators import operator
from e2e.support.processes import eventually
from e2e.support.replicas import replica


def tidegate(api: ApiServer, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `tidegate rollback`."""
    command = [sys.executable, "-m", "ratelimit_service.cli", "rollback", "--kubeconfig", str(api.kubeconfig("admin"))]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def newest(api: ApiServer) -> str:
    """Version of the newest kept set, empty: there is none."""
    return next(iter(re.findall(r"\b[0-9a-f]{16}\b", tidegate(api)[1])), "")


def test_a_kept_set_is_given_out_until_the_rollback_ends(
    api: ApiServer, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    """What is applied meanwhile waits and says so; a new operator goes on with it; no right is missing."""
    manifest, domain = policy(namespace), f"{namespace}.checkout"
    kube.apply(manifest).good()
    since = api.mark()
    with ExitStack() as parts:
        first = parts.enter_context(ExitStack())
        one = first.enter_context(operator(api, tmp_path, "--history", "2", name="one"))
        two = parts.enter_context(operator(api, tmp_path, "--history", "2", name="two"))
        asked = parts.enter_context(replica(tmp_path, "replica", [one.xds, two.xds]))
        programmed(kube, manifest, 1)
        good = eventually("a kept set", lambda: newest(api) or None, 60)
        limit(manifest, 7)
        kube.apply(manifest).good()
        programmed(kube, manifest, 1)
        eventually("the second set", lambda: newest(api) not in ("", good), 60)

        assert tidegate(api, "0123456789abcdef")[0] == 2
        code, said = tidegate(api, good)
        assert code == 0, said
        found = awaited(kube, manifest, "the rollback", lambda found: "rolled back to" in _why(found))
        assert condition(found, "Programmed")["status"] == "False"
        eventually("the old limit", lambda: asked.admits(domain, user="ann") == 5, 30)
        assert one.metric("rolled_back", good) + two.metric("rolled_back", good) == 2

        first.close()  # the holder, or the one that waits: either way somebody goes on
        eventually("two to lead", lambda: two.leads, 60)
        limit(manifest, 9)
        kube.apply(manifest).good()
        awaited(
            kube,
            manifest,
            "the third form to wait",
            lambda found: found["status"]["observedGeneration"] == 3 and "rolled back to" in _why(found),
        )
        assert asked.ask(domain, user="ann") == 429
        assert "rolled back to" in tidegate(api)[1]

        code, said = tidegate(api, "--end")
        assert code == 0, said
        programmed(kube, manifest, 1)
        assert asked.admits(domain, user="bob") == 9
        eventually("the oldest set to go", lambda: good not in tidegate(api)[1], 60)
    assert [each for each in api.requests(since) if each.code == 403] == []


def _why(found: dict) -> str:
    return str(condition(found, "Programmed").get("message", ""))
