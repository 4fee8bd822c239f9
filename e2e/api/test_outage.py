"""Ten real minutes without any operator; `make e2e PYTEST=e2e/api/test_outage.py` with TIDEGATE_LONG=all."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.api.test_loss import kept_parts
from e2e.api.test_replicas import limit, programmed, running_plane
from e2e.api.test_status import policy
from e2e.support.api_server import ApiServer
from e2e.support.grpc_load import GrpcLoad
from e2e.support.kube import Kube
from e2e.support.operators import operator
from e2e.support.processes import eventually
from e2e.support.replicas import replica

OUTAGE_S = 600.0


@pytest.mark.long
def test_ten_minutes_without_an_operator(api: ApiServer, kube: Kube, namespace: str, tmp_path: Path) -> None:
    """Replicas limit all the time, a new one and a restarted one too; what changed meanwhile is live afterwards."""
    changed, deleted = policy(namespace), policy(namespace, "deleted", f"{namespace}.deleted")
    with ExitStack() as parts:
        plane = parts.enter_context(running_plane(api, tmp_path))
        for manifest in (changed, deleted):
            kube.apply(manifest).good()
        versions = [programmed(kube, each)["status"]["distribution"]["version"] for each in (changed, deleted)]
        for version in versions:
            kept = eventually("the kept set", lambda version=version: kept_parts(kube, version), 60)  # type: ignore[misc]
        mounted, snapshot = tmp_path / "bootstrap", tmp_path / "snapshot"
        mounted.mkdir()
        for key, content in kept.items():
            (mounted / key).write_bytes(content)
        places = [each.xds for each in plane.operators]
        with replica(tmp_path, "restarted", places, "--xds-snapshot", str(snapshot)) as before:
            eventually("its snapshot", lambda: before.is_ready and snapshot.is_dir() and any(snapshot.iterdir()), 60)
        for killed in plane.operators:
            killed.process.send(signal.SIGKILL)
            killed.process.wait()

        began_s = time.monotonic()
        with GrpcLoad([each.grpc for each in plane.replicas], f"{namespace}.checkout", pause_s=0.2, user="x") as load:
            kube.delete(deleted).good()
            limit(changed, 9)
            kube.apply(changed).good()
            eventually("half of the time", lambda: time.monotonic() - began_s > OUTAGE_S / 2, OUTAGE_S)
            cold = parts.enter_context(replica(tmp_path, "cold", places, "--xds-bootstrap", str(mounted)))
            again = parts.enter_context(replica(tmp_path, "again", places, "--xds-snapshot", str(snapshot)))
            for started in (cold, again):
                eventually("a new replica to be ready", lambda started=started: started.is_ready, 30)  # type: ignore[misc]
                assert started.admits(f"{namespace}.checkout", user="new") == 5
            eventually("all of the time", lambda: time.monotonic() - began_s > OUTAGE_S, OUTAGE_S)
            # Five calls of the hour were admitted by each, and not one since; every call was answered.
            assert load.answers["OK"] == 5 * len(plane.replicas)
        assert set(load.answers) == {"OK", "OVER_LIMIT"}
        for each in (*plane.replicas, cold, again):
            assert each.is_ready
            assert each.admits(f"{namespace}.deleted", user="late") == 5

        parts.enter_context(operator(api, tmp_path, "--xds", places[0], name="back"))
        programmed(kube, changed, replicas=5, timeout_s=120)
        for each in (*plane.replicas, cold, again):
            assert each.admits(f"{namespace}.checkout", user="after") == 9
            assert each.ask(f"{namespace}.deleted", user="late") == 200
