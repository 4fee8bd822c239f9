"""Two operators, two releases, the bootstrap set, admission: what a release is beside its policies."""

from __future__ import annotations

import itertools
import signal
import time
from pathlib import Path
from typing import Any

import yaml

from e2e.api.conftest import CRDS
from e2e.api.test_status import awaited, judged, policy, profile
from e2e.support.api_server import NAMESPACE, ApiServer
from e2e.support.kube import Kube, condition
from e2e.support.operators import operator
from e2e.support.processes import eventually


def test_another_operator_takes_over(api: ApiServer, kube: Kube, namespace: str, tmp_path: Path) -> None:
    """At once after a graceful stop, after the lease's time when the holder was killed; never two at a time."""
    manifest = policy(namespace)
    kube.apply(manifest).good()
    with operator(api, tmp_path, name="one") as one:
        eventually("one to lead", lambda: one.leads, 60)
        with operator(api, tmp_path, name="two") as two:
            eventually("two to be ready", lambda: two.is_ready, 60)
            assert not two.leads

            one.process.send(signal.SIGTERM)
            assert one.process.wait() == 0
            eventually("two to lead", lambda: two.leads, 30)

            with operator(api, tmp_path, name="three") as three:
                eventually("three to be ready", lambda: three.is_ready, 60)
                two.process.send(signal.SIGKILL)
                two.process.wait()
                eventually("three to lead", lambda: three.leads, 60)
                kube.merge(manifest, {"spec": {"mode": "Shadow"}}).good()
                judged(kube, manifest)


def test_what_was_live_survives_every_operator(api: ApiServer, kube: Kube, namespace: str, tmp_path: Path) -> None:
    """A form that is not accepted any more is known from the bootstrap set, with its generation."""
    manifest = policy(namespace)
    kube.apply(manifest).good()
    with operator(api, tmp_path, name="one") as one:
        eventually("one to lead", lambda: one.is_ready and one.leads, 60)
        before = awaited(kube, manifest, "a live form", lambda found: found.get("status"))["status"]["distribution"]
        eventually("the bootstrap set", lambda: _kept(kube, before["version"], one.process.output()), 30)

    manifest["spec"]["rules"][0]["replaces"] = ["nobody"]
    kube.apply(manifest).good()
    with operator(api, tmp_path, name="two") as two:
        eventually("two to lead", lambda: two.is_ready and two.leads, 60)
        found = judged(kube, manifest)

    assert condition(found, "Accepted")["reason"] == "Invalid"
    assert found["status"]["distribution"]["version"] == before["version"]
    assert found["status"]["distribution"]["generation"] == 1


def _kept(kube: Kube, version: str, output: str) -> bool:
    """Whether a set was kept since that version was live."""
    found = kube.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/tidegate-bootstrap-0").good()
    return bool(version) and bool(found.get("binaryData")) and "bootstrap set kept" in output


def test_two_releases_share_a_cluster_by_namespaces(api: ApiServer, kube: Kube, tmp_path: Path) -> None:
    """Each writes its own namespaces; where both would write one, one of them says so and does not fight."""
    for name in ("left", "right", "tidegate-two"):
        kube.namespace(name)
    _grant(kube, "tidegate-two")
    left, right = policy("left"), policy("right")
    kube.apply(left).good()
    kube.apply(right).good()
    second = ("--controller-name", "two", "--release-namespace", "tidegate-two")
    with operator(api, tmp_path, "--namespaces", "left", name="one") as one:
        judged(kube, left)
        assert "status" not in kube.read(right)
        with operator(api, tmp_path, *second, "--namespaces", "right", name="two") as two:
            judged(kube, right)
            assert one.is_ready
            assert two.is_ready
        with operator(api, tmp_path, *second, "--namespaces", "left", name="three") as three:
            eventually("three to lead", lambda: three.leads, 60)
            modes = itertools.cycle(["Shadow", "Enforce"])

            def seen() -> bool:
                return _overlaps(one.page("/readyz")) or _overlaps(three.page("/readyz"))

            def overlap() -> bool:
                # Who is faster writes the change, and the other one sees that it was not alone; where both were as
                # fast, both of them see it and neither writes any more.
                generation = kube.merge(left, {"spec": {"mode": next(modes)}}).good()["metadata"]["generation"]
                eventually(
                    "one of them",
                    lambda: seen() or kube.read(left)["status"].get("observedGeneration") == generation,
                    30,
                )
                return seen()

            eventually("the overlap", overlap, 60)


def test_a_release_that_is_gone_stands_in_nobodys_way(api: ApiServer, kube: Kube, tmp_path: Path) -> None:
    """Its name stays on what it wrote; the next release takes that over and is ready."""
    kube.namespace("handed")
    kube.namespace("tidegate-two")
    _grant(kube, "tidegate-two")
    manifest = policy("handed")
    kube.apply(manifest).good()
    second = ("--controller-name", "two", "--release-namespace", "tidegate-two")
    with operator(api, tmp_path, *second, "--namespaces", "handed", name="two"):
        judged(kube, manifest)
    # Times of writing are whole seconds.
    time.sleep(1.1)
    kube.merge(manifest, {"spec": {"mode": "Shadow"}}).good()
    with operator(api, tmp_path, "--namespaces", "handed", name="one") as one:
        judged(kube, manifest)
        assert one.is_ready


def _overlaps(page: tuple[int, str]) -> bool:
    return page[0] == 503 and "is written by another release" in page[1]


def _grant(kube: Kube, namespace: str) -> None:
    """The role of `crds/rbac.yaml` in the namespace of another release, for the same account."""
    for manifest in yaml.safe_load_all((CRDS / "rbac.yaml").read_text(encoding="utf-8")):
        if manifest["kind"] in ("Role", "RoleBinding", "Lease", "ConfigMap"):
            manifest["metadata"]["namespace"] = namespace
            kube.apply(manifest).good()


def test_admission_says_what_status_says(api: ApiServer, kube: Kube, namespace: str, tmp_path: Path) -> None:
    """With `crds/admission.yaml` a tenant is refused at once, in the words that the operator has for it."""
    manifests = [
        policy(namespace, domain="bank.web"),
        profile(namespace, "store", store={"type": "Redis", "endpoints": ["redis:6379"]}),
        profile(namespace, "default", default=True),
    ]
    for manifest in manifests:
        kube.apply(manifest).good()
    with operator(api, tmp_path) as running:
        eventually("the operator to lead", lambda: running.is_ready and running.leads, 60)
        said = [condition(judged(kube, manifest), "Accepted")["message"] for manifest in manifests]
    guarded = f"{namespace}-guarded"
    kube.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": guarded, "labels": {"guarded": "true"}}}
    ).good()
    for part in yaml.safe_load_all((CRDS / "admission.yaml").read_text(encoding="utf-8")):
        if part["kind"] == "ValidatingAdmissionPolicyBinding":
            part["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {"guarded": "true"}}}
        kube.apply(part).good()

    for manifest, words in zip(manifests, said, strict=True):
        manifest["metadata"]["namespace"] = guarded
        expected = words.replace(f"namespace {namespace} ", f"namespace {guarded} ").replace(
            f"`{namespace}.`", f"`{guarded}.`"
        )
        eventually("the refusal", lambda manifest=manifest: _refused(kube, manifest), 30)  # type: ignore[misc]
        assert expected in kube.create(manifest).message
    allowed = policy(guarded)
    assert kube.create(allowed).code == 201


def _refused(kube: Kube, manifest: dict[str, Any]) -> bool:
    """Whether the API server refuses it by now; what it takes before is removed again."""
    answer = kube.create(manifest)
    if answer.code == 201:
        kube.delete(manifest)
    return answer.code == 422
