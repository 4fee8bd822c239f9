"""What the API server itself says of a manifest: the same fields and words as the decoder of files."""

from __future__ import annotations

import copy
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.support.kube import Kube
from e2e.support.processes import eventually
from tests.unit.policy.test_samples import BAD, GOOD, header
from tools import crd_history

SCHEMA = [path for path in BAD if header(path)["refused-by"] == "schema"]
CEL = [path for path in BAD if header(path)["refused-by"] == "cel"]
OURS = [path for path in BAD if header(path)["refused-by"] == "decoder"]
KEPT = [path for plural in crd_history.PLURALS for path in crd_history.entries(plural)[:-1]]
"""Definitions from before the present ones."""


def _manifest(path: Path, namespace: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    manifest["metadata"]["namespace"] = namespace
    return manifest


def _ids(path: Path) -> str:
    return path.stem


def _fields(kube: Kube, path: Path, namespace: str) -> tuple[list[tuple[str, str]], str]:
    answer = kube.create(_manifest(path, namespace))
    assert answer.code in (400, 422), answer.body
    return answer.causes, answer.message


@pytest.mark.parametrize("path", CEL, ids=_ids)
def test_a_rule_between_fields_is_refused_in_our_words(kube: Kube, namespace: str, path: Path) -> None:
    """Path and message of the refusal are those of the file decoder."""
    causes, _ = _fields(kube, path, namespace)

    expected = header(path)
    assert (expected["path"], expected["message"]) in [(field, _words(message)) for field, message in causes]


def _words(message: str) -> str:
    """The rule's message out of `Invalid value: "object": burst goes with TokenBucket`."""
    return re.sub(r'^Invalid value: (?:"(?:[^"\\]|\\.)*"|\S+): ', "", message)


@pytest.mark.parametrize("path", SCHEMA, ids=_ids)
def test_a_field_that_breaks_the_schema_is_named(kube: Kube, namespace: str, path: Path) -> None:
    """The path is the file decoder's, as far as the API server's own form of it allows."""
    causes, message = _fields(kube, path, namespace)

    wanted = header(path)["path"]
    named = [field for field, _ in causes] + re.findall(r'unknown field "([^"]+)"', message)
    assert any(_same_place(wanted, field) for field in named), (wanted, named, message)


def _same_place(wanted: str, field: str) -> bool:
    """Whether the API server names the field, one item of it, or what is wrong inside it."""
    return field == wanted or re.sub(r"\[\d+\]$", "", field) == wanted or field.startswith(f"{wanted}.")


@pytest.mark.parametrize("path", OURS, ids=_ids)
def test_what_only_the_operator_checks_is_stored(kube: Kube, namespace: str, path: Path) -> None:
    """The API server takes it; status says what is wrong (test_status)."""
    assert kube.create(_manifest(path, namespace)).code == 201


@pytest.mark.parametrize("path", GOOD, ids=_ids)
def test_a_good_manifest_is_stored(kube: Kube, namespace: str, path: Path) -> None:
    """Nothing that files may say is refused."""
    answer = kube.create(_manifest(path, namespace))

    assert answer.code == 201, answer.message


def test_a_domain_cannot_be_changed(kube: Kube, namespace: str) -> None:
    """Its counters would begin anew; every other field may change."""
    manifest = _minimal(namespace)
    kube.apply(manifest).good()

    moved = kube.merge(manifest, {"spec": {"domain": f"{namespace}.other"}})
    shadowed = kube.merge(manifest, {"spec": {"mode": "Shadow"}})

    assert moved.code == 422
    assert [(field, _words(text)) for field, text in moved.causes] == [
        ("spec.domain", "domain is immutable: a change would reset its counters")
    ]
    assert shadowed.code == 200


def test_the_type_of_a_store_cannot_be_changed(kube: Kube, namespace: str) -> None:
    """Its counters would begin anew."""
    profile = {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "CacheProfile",
        "metadata": {"name": "shared", "namespace": namespace},
        "spec": {},
    }
    kube.apply(profile).good()

    moved = kube.merge(profile, {"spec": {"store": {"type": "Redis", "endpoints": ["redis:6379"]}}})

    assert moved.code == 422
    assert moved.causes[0][0] == "spec.store.type"


def test_kubectl_finds_both_kinds_by_short_name_and_category(kube: Kube) -> None:
    """`kubectl get tgrlp`, `kubectl get tidegate`."""
    resources = kube.get("/apis/tidegate.dev/v1alpha1").good()["resources"]

    names = {each["name"]: (each.get("shortNames"), each.get("categories")) for each in resources}
    assert names["ratelimitpolicies"] == (["tgrlp"], ["tidegate"])
    assert names["cacheprofiles"] == (["tgcp"], ["tidegate"])
    assert "ratelimitpolicies/status" in names


def test_kubectl_explain_has_a_sentence_for_every_field(kube: Kube) -> None:
    """The published OpenAPI document is what `kubectl explain` shows."""
    schemas = kube.get("/openapi/v3/apis/tidegate.dev/v1alpha1").good()["components"]["schemas"]

    policy = schemas["dev.tidegate.v1alpha1.RateLimitPolicy"]["properties"]["spec"]["properties"]
    rule = policy["rules"]["items"]["properties"]
    assert rule["limits"]["items"]["properties"]["burst"]["description"].startswith("What the bucket holds")
    assert all(field.get("description") for field in (*policy.values(), *rule.values()))


def test_kubectl_get_shows_the_columns(kube: Kube, namespace: str) -> None:
    """A table as kubectl asks for it; what status does not say yet is empty."""
    kube.apply(_minimal(namespace)).good()

    answer = kube.request(
        "GET", f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/ratelimitpolicies", accept=_TABLE
    ).good()

    wide = [each["name"] for each in answer["columnDefinitions"]]
    assert wide == ["Name", "Domain", "Mode", "Accepted", "Programmed", "Replicas", "Age", "Reason", "Version"]
    assert answer["rows"][0]["cells"][:3] == ["checkout", None, "Enforce"]


_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def _minimal(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": "checkout", "namespace": namespace},
        "spec": {
            "domain": f"{namespace}.checkout",
            "rules": [
                {
                    "name": "per-user",
                    "match": [{"key": "user", "type": "Any"}],
                    "limits": [{"requests": 5, "window": "10s"}],
                }
            ],
        },
    }


def test_two_owners_of_a_policy_do_not_lose_each_others_fields(kube: Kube, namespace: str) -> None:
    """Rules are a map by name: each owner applies its own, and a foreign condition survives ours."""
    manifest = _minimal(namespace)
    kube.apply(manifest, "team").good()
    extra = {**manifest["spec"]["rules"][0], "name": "per-tenant", "match": [{"key": "tenant", "type": "Any"}]}
    kube.apply(manifest | {"spec": {"domain": f"{namespace}.checkout", "rules": [extra]}}, "platform").good()

    kube.apply(manifest, "team").good()

    assert [each["name"] for each in kube.read(manifest)["spec"]["rules"]] == ["per-user", "per-tenant"]


def test_objects_from_before_a_rule_can_still_be_edited(kube: Kube, namespace: str) -> None:
    """An object that a new rule would refuse keeps its status writable, and everything else that it says editable."""
    ours = yaml.safe_load((Path(__file__).parents[2] / "crds/ratelimitpolicies.yaml").read_text(encoding="utf-8"))
    before = yaml.safe_load((Path(__file__).parents[2] / "crds/ratelimitpolicies.yaml").read_text(encoding="utf-8"))
    _without_rules(before)
    manifest = _minimal(namespace)
    # `burst` without a bucket: what the present definition refuses.
    manifest["spec"]["rules"][0]["limits"][0]["burst"] = 9
    assert kube.create(manifest).code == 422
    kube.apply(before, "definitions").good()
    try:
        eventually("the old definition", lambda: kube.create(manifest).code in (201, 409), timeout_s=60)
    finally:
        kube.apply(ours, "definitions").good()
    fresh = _minimal(namespace)
    fresh["metadata"]["name"] = "fresh"
    fresh["spec"]["rules"][0]["limits"][0]["burst"] = 9
    eventually("the present definition", lambda: _refused(kube, fresh), timeout_s=60)

    status = {"status": {"observedGeneration": 1}}
    assert kube.merge(manifest, status, "/status").code == 200
    assert kube.merge(manifest, {"metadata": {"labels": {"team": "a"}}}).code == 200
    assert kube.merge(manifest, {"spec": {"mode": "Shadow"}}).code == 200


@pytest.mark.parametrize("kept", KEPT, ids=_ids)
def test_objects_of_an_earlier_definition_live_on_under_the_present_one(kube: Kube, namespace: str, kept: Path) -> None:
    """Each that it took can have its status written, be edited elsewhere, and be applied again as it is."""
    plural = kept.name.partition("-")[0]
    present = yaml.safe_load((Path(__file__).parents[2] / f"crds/{plural}.yaml").read_text(encoding="utf-8"))
    kind = present["spec"]["names"]["kind"]
    samples = [each for each in (_manifest(path, namespace) for path in GOOD) if each["kind"] == kind]
    for number, sample in enumerate(samples):
        sample["metadata"]["name"] = f"sample-{number}"
    _define(kube, yaml.safe_load(kept.read_text(encoding="utf-8")), kind, namespace)
    try:
        # What has a field that did not exist yet is refused, and that is right.
        stored = [each for each in samples if kube.apply(each, "team").code in (200, 201)]
    finally:
        _define(kube, present, kind, namespace)
        kube.apply(present, "definitions").good()

    assert 2 * len(stored) > len(samples)
    for sample in stored:
        assert kube.merge(sample, {"status": {"observedGeneration": 1}}, "/status").code == 200, sample
        assert kube.merge(sample, {"metadata": {"labels": {"team": "a"}}}).code == 200, sample
        assert kube.apply(sample, "team").code == 200, sample


def _define(kube: Kube, definition: dict[str, Any], kind: str, namespace: str) -> None:
    """Apply a definition and wait until the API server goes by it: it carries a rule that one object breaks."""
    mark = f"mark-{secrets.token_hex(4)}"
    marked = copy.deepcopy(definition)
    schema = marked["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["x-kubernetes-validations"] = [{"rule": f"self.metadata.name != '{mark}'", "message": mark}]
    kube.apply(marked, "definitions").good()
    probe = {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": mark, "namespace": namespace},
        "spec": _minimal(namespace)["spec"] if kind == "RateLimitPolicy" else {},
    }
    eventually("the definition to count", lambda: _refused(kube, probe), timeout_s=60)


def _refused(kube: Kube, manifest: dict[str, Any]) -> bool:
    answer = kube.create(manifest)
    if answer.code == 201:
        kube.delete(manifest)
    return answer.code == 422


def _without_rules(part: Any) -> None:
    """Take the rules between fields out of a definition, as a version before them would be."""
    if isinstance(part, dict):
        part.pop("x-kubernetes-validations", None)
        for below in part.values():
            _without_rules(below)
    elif isinstance(part, list):
        for below in part:
            _without_rules(below)
