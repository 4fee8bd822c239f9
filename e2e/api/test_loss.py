"""Two operators and three replicas as processes, and what is left when some of them are killed."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.api.test_replicas import Plane, limit, programmed, running_plane
from e2e.api.test_status import policy
from e2e.support.api_server import NAMESPACE, ApiServer
from e2e.support.kube import Kube
from e2e.support.operators import operator
from e2e.support.processes import eventually
from e2e.support.replicas import replica
from ratelimit_service.wire.xds.resources import decode_any, decode_resource
from ratelimit_service.wire.xds.snapshot_part import decode_parts


@pytest.fixture
def plane(api: ApiServer, tmp_path: Path) -> Iterator[Plane]:
    """One for each test: parts of it are killed."""
    with running_plane(api, tmp_path) as running:
        yield running


def test_replicas_serve_through_the_loss_of_every_operator(
    api: ApiServer, kube: Kube, namespace: str, plane: Plane, tmp_path: Path
) -> None:
    """Kill -9 of the holder: the other takes over. Of both: limits go on, and what was deleted meanwhile ends later."""
    manifest, domain = policy(namespace), f"{namespace}.checkout"
    kube.apply(manifest).good()
    programmed(kube, manifest)

    first = plane.holder
    first.process.send(signal.SIGKILL)
    first.process.wait()
    limit(manifest, 3)
    kube.apply(manifest).good()
    programmed(kube, manifest, timeout_s=90)
    assert plane.replicas[1].admits(domain, user="ann") == 3

    last = plane.holder
    last.process.send(signal.SIGKILL)
    last.process.wait()
    kube.delete(manifest).good()
    assert [each.admits(domain, user="bob") for each in plane.replicas] == [3, 3, 3]
    assert all(each.is_ready for each in plane.replicas)

    flags = ("--xds", first.xds)
    with operator(api, tmp_path, *flags, name="late"):
        eventually(
            "the end of the limit", lambda: all(each.ask(domain, user="bob") == 200 for each in plane.replicas), 90
        )


def test_the_loss_of_a_follower_is_not_felt(kube: Kube, namespace: str, plane: Plane) -> None:
    """Kill -9 of the operator that does not hold the Lease: the holder stays it, and the next change is live."""
    manifest, domain = policy(namespace), f"{namespace}.checkout"
    kube.apply(manifest).good()
    programmed(kube, manifest)
    holder = plane.holder
    follower = next(each for each in plane.operators if each is not holder)

    follower.process.send(signal.SIGKILL)
    follower.process.wait()
    limit(manifest, 3)
    kube.apply(manifest).good()
    programmed(kube, manifest)

    assert plane.holder is holder
    assert [each.admits(domain, user="ann") for each in plane.replicas] == [3, 3, 3]


def test_a_cold_replica_starts_from_the_bootstrap_set(kube: Kube, namespace: str, plane: Plane, tmp_path: Path) -> None:
    """No operator anywhere: what the ConfigMaps hold is mounted, and the replica is ready and limits."""
    manifest, domain = policy(namespace), f"{namespace}.checkout"
    kube.apply(manifest).good()
    programmed(kube, manifest)
    limit(manifest, 4)
    kube.apply(manifest).good()
    version = programmed(kube, manifest)["status"]["distribution"]["version"]
    parts = eventually("the kept set", lambda: kept_parts(kube, version), 60)
    for each in plane.operators:
        each.process.send(signal.SIGKILL)
        each.process.wait()
    mounted = tmp_path / "bootstrap"
    mounted.mkdir()
    for key, content in parts.items():
        (mounted / key).write_bytes(content)

    with replica(tmp_path, "cold", ["127.0.0.1:1"], "--xds-bootstrap", str(mounted)) as cold:
        eventually("the cold replica to be ready", lambda: cold.is_ready, 30)
        assert cold.admits(domain, user="ann") == 4


def kept_parts(kube: Kube, version: str) -> dict[str, bytes] | None:
    """The bootstrap set's files, once a policy of that version is in it."""
    parts: dict[str, bytes] = {}
    for number in range(8):
        found = kube.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/tidegate-bootstrap-{number}").good()
        parts |= {key: base64.b64decode(text) for key, text in (found.get("binaryData") or {}).items()}
    stored, _ = decode_parts(parts.values())
    resources = () if stored is None else stored.resources
    return parts if any(decode_resource(decode_any(each).value).version == version for each in resources) else None
