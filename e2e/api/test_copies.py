"""Profiles as ConfigMaps: what a program that uses the library mounts, on a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.api.test_status import awaited, profile
from e2e.support.api_server import NAMESPACE, ApiServer
from e2e.support.kube import Kube, condition
from e2e.support.operators import Operator, operator
from e2e.support.processes import eventually
from ratelimit_service.cache.service import CacheService

BOUND, UNBOUND = "copies", "copies-unbound"


@pytest.fixture(scope="module")
def running_operator(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator for all: two namespaces are to get ConfigMaps, and its role allows that in one of them."""
    kube = api.kube()
    for name in (BOUND, UNBOUND):
        kube.namespace(name)
    kube.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "tidegate-profiles", "namespace": BOUND},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "tidegate-operator-profiles",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "tidegate-operator", "namespace": NAMESPACE}],
        }
    ).good()
    since = api.mark()
    flags = ("--profile-config-maps", BOUND, "--profile-config-maps", UNBOUND)
    with operator(api, tmp_path_factory.mktemp("operator"), *flags) as running:
        eventually("the operator to lead", lambda: running.is_ready and running.leads, 60)
        yield running
    refused = [each for each in api.requests(since) if each.code == 403]
    assert [each for each in refused if f"/namespaces/{UNBOUND}/configmaps" not in each.uri] == []


def _content(kube: Kube, namespace: str, name: str) -> str | None:
    """The profile in its ConfigMap, None: there is none."""
    answer = kube.get(f"/api/v1/namespaces/{namespace}/configmaps/tidegate-profile-{name}")
    return None if answer.code == 404 else str(answer.good()["data"]["profile.yaml"])


def test_a_program_follows_its_profile(kube: Kube, running_operator: Operator, tmp_path: Path) -> None:
    """Applied, changed and deleted with kubectl; the program reads the mounted file and goes by it as it changes."""
    manifest, path = profile(BOUND, "shared", preset="Sessions", ttl="10s"), tmp_path / "profile.yaml"
    kube.apply(manifest).good()
    first = eventually("the ConfigMap", lambda: _content(kube, BOUND, "shared"), 30)
    found = awaited(kube, manifest, "its name in the status", _is_written)
    path.write_text(first, encoding="utf-8")

    async def program() -> tuple[int, int]:
        async with CacheService[str].from_profile(path) as cache:
            began_us = cache.settings.ttl_us
            await cache.set("key", "value")
            assert await cache.get("key") == "value"
            await asyncio.to_thread(_change, kube, manifest, path)
            await asyncio.to_thread(eventually, "the program to follow", lambda: cache.settings.ttl_us != began_us, 60)
            return began_us, cache.settings.ttl_us

    assert asyncio.run(program()) == (10_000_000, 20_000_000)
    assert found["status"]["configMap"]["name"] == "tidegate-profile-shared"
    kube.delete(manifest).good()
    eventually("the ConfigMap to go", lambda: _content(kube, BOUND, "shared") is None, 30)


def _is_written(found: dict[str, Any]) -> bool:
    copied = found.get("status", {}).get("configMap", {})
    return bool(copied.get("version")) and "lastError" not in copied


def _change(kube: Kube, manifest: dict[str, Any], path: Path) -> None:
    """Change the profile; then do what the kubelet does with a mounted ConfigMap."""
    kube.merge(manifest, {"spec": {"ttl": "20s"}}).good()
    content = eventually("the change", lambda: _with(kube, manifest["metadata"]["name"], "ttl: 20s"), 30)
    new = path.with_suffix(".new")
    new.write_text(content, encoding="utf-8")
    new.replace(path)


def _with(kube: Kube, name: str, text: str) -> str | None:
    """The profile in the ConfigMap, once that text is in it."""
    content = _content(kube, BOUND, name)
    return content if content is not None and text in content else None


def test_what_is_not_accepted_changes_nothing_and_what_is_edited_is_mended(
    kube: Kube, running_operator: Operator
) -> None:
    """The last accepted form stays in the ConfigMap, whoever edits or deletes that; the profile owns it."""
    manifest = profile(BOUND, "kept", preset="Sessions", ttl="10s")
    kube.apply(manifest).good()
    before = eventually("the ConfigMap", lambda: _content(kube, BOUND, "kept"), 30)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tidegate-profile-kept", "namespace": BOUND},
    }
    owner = kube.read(config_map)["metadata"]["ownerReferences"]

    kube.merge(manifest, {"spec": {"default": True}}).good()
    awaited(kube, manifest, "the refusal", lambda found: condition(found, "Accepted").get("status") == "False")
    kube.merge(config_map, {"data": {"profile.yaml": "edited"}}).good()
    eventually("the edit to be mended", lambda: _content(kube, BOUND, "kept") == before, 60)
    kube.delete(config_map).good()
    eventually("the ConfigMap to be back", lambda: _content(kube, BOUND, "kept") == before, 60)

    assert [(each["kind"], each["uid"]) for each in owner] == [("CacheProfile", kube.read(manifest)["metadata"]["uid"])]


def test_no_other_namespace_gets_any(kube: Kube, namespace: str, running_operator: Operator) -> None:
    """Neither a ConfigMap nor a word of one in the status."""
    other = profile(namespace, "shared", ttl="10s")
    kube.apply(other).good()

    found = awaited(kube, other, "a status", lambda found: condition(found, "Accepted"))

    assert _content(kube, namespace, "shared") is None
    assert "configMap" not in found["status"]


def test_a_namespace_without_the_binding_is_told_so(kube: Kube, running_operator: Operator) -> None:
    """The status says what the API server said; everything else of the profile is as it should be."""
    manifest = profile(UNBOUND, "shared", ttl="10s")
    kube.apply(manifest).good()

    found = awaited(
        kube, manifest, "the reason", lambda found: "lastError" in found.get("status", {}).get("configMap", {})
    )

    assert "403" in found["status"]["configMap"]["lastError"]
    assert condition(found, "Ready")["status"] == "True"
