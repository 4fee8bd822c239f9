"""What the operator says of single objects, on a real API server and with exactly the role of `crds/rbac.yaml`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.api.test_crds import OURS
from e2e.support.api_server import NAMESPACE, ApiServer
from e2e.support.kube import Kube, condition
from e2e.support.operators import Operator, operator
from e2e.support.processes import eventually
from tests.unit.policy.test_samples import GOOD, header

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def running_operator(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator for all, which must never ask for what its role does not allow."""
    since = api.mark()
    with operator(api, tmp_path_factory.mktemp("operator")) as running:
        eventually("the operator to lead", lambda: running.is_ready and running.leads, 60)
        yield running
    refused = [each for each in api.requests(since) if each.code == 403]
    assert refused == []


def policy(namespace: str, name: str = "checkout", domain: str = "", **spec: Any) -> Manifest:
    """A policy of a domain of its namespace, `<namespace>.checkout` unless said otherwise."""
    rules = [
        {"name": "per-user", "match": [{"key": "user", "type": "Any"}], "limits": [{"requests": 5, "window": "1h"}]}
    ]
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"domain": domain or f"{namespace}.checkout", "rules": rules, **spec},
    }


def profile(namespace: str, name: str = "shared", **spec: Any) -> Manifest:
    """A profile."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "CacheProfile",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def awaited(
    kube: Kube, manifest: Mapping[str, Any], what: str, holds: Callable[[Manifest], object], timeout_s: float = 30
) -> Manifest:
    """The object, once that holds of it."""

    def look() -> Manifest | None:
        found = kube.read(manifest)
        return found if holds(found) else None

    return eventually(what, look, timeout_s, explain=lambda: str(kube.read(manifest).get("status")))


def judged(kube: Kube, manifest: Mapping[str, Any]) -> Manifest:
    """The object, once its present generation has been judged."""
    return awaited(
        kube,
        manifest,
        "a status of the present generation",
        lambda found: (found.get("status") or {}).get("observedGeneration") == found["metadata"]["generation"],
    )


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_what_the_api_server_cannot_check_is_in_the_status(
    kube: Kube, namespace: str, running_operator: Operator, path: Path
) -> None:
    """Accepted=False/Invalid, with the file decoder's path and words."""
    manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    manifest["metadata"]["namespace"] = namespace
    kube.apply(manifest).good()

    accepted = condition(judged(kube, manifest), "Accepted")

    said = header(path)
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert f"{said['path']}: {said['message']}" in accepted["message"]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_manifest_is_accepted(kube: Kube, running_operator: Operator, path: Path) -> None:
    """In a platform namespace, where everything is allowed; but for targets that are not there."""
    manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    manifest["metadata"]["namespace"] = f"good-{path.stem}"
    kube.namespace(f"good-{path.stem}", platform="true")
    kube.apply(manifest).good()

    expected = {"targetRefs": "TargetNotFound", "workloadSelector": "NoIntegration"}
    attached = next((reason for field, reason in expected.items() if field in manifest["spec"]), None)
    accepted = "Accepted" if attached != "TargetNotFound" else attached
    # The label of a new namespace may be seen after the policy.
    found = awaited(
        kube,
        manifest,
        f"{kind} {name}: {accepted}",
        lambda found: condition(found, "Accepted").get("reason") == accepted,
    )
    assert condition(found, "Attached").get("reason") == attached
    if kind == "RateLimitPolicy" and condition(found, "ResolvedRefs")["status"] == "True":
        assert found["status"]["distribution"]["version"]
        assert found["status"]["effective"]["domain"] == manifest["spec"].get("domain", "tidegate.dev")


def test_a_tenant_may_not_use_anothers_domain(kube: Kube, namespace: str, running_operator: Operator) -> None:
    """Until its namespace is labelled; then it may, without a change of the policy."""
    manifest = policy(namespace, domain="bank.web")
    kube.apply(manifest).good()
    assert condition(judged(kube, manifest), "Accepted")["reason"] == "NotAllowed"

    kube.namespace(namespace, platform="true")

    awaited(kube, manifest, "the label to count", lambda found: condition(found, "Accepted")["status"] == "True")


def test_the_loser_of_a_conflict_names_the_winner_and_takes_over(
    kube: Kube, namespace: str, running_operator: Operator
) -> None:
    """The older policy's rule is in force; without it the younger one's."""
    winner, loser = policy(namespace, "winner"), policy(namespace, "zloser")
    kube.apply(winner).good()
    judged(kube, winner)
    kube.apply(loser).good()

    found = awaited(kube, loser, "the loss", lambda found: found.get("status", {}).get("effective", {}))
    assert found["status"]["effective"]["overriddenBy"] == [f"per-user: {namespace}/winner"]
    assert condition(found, "Programmed")["reason"] == "Overridden"

    kube.delete(winner).good()

    awaited(kube, loser, "the promotion", lambda found: found["status"]["effective"]["ruleCount"] == 1)


def test_the_last_accepted_form_stays_live(kube: Kube, namespace: str, running_operator: Operator) -> None:
    """A change that breaks a rule of ours is told, and the version that is live does not move."""
    manifest = policy(namespace)
    kube.apply(manifest).good()
    before = judged(kube, manifest)["status"]["distribution"]

    manifest["spec"]["rules"][0]["replaces"] = ["nobody"]
    kube.apply(manifest).good()
    found = awaited(kube, manifest, "the refusal", lambda found: condition(found, "Accepted")["status"] == "False")

    assert found["status"]["distribution"] == before
    assert found["status"]["observedGeneration"] == 2


def test_a_profile_that_comes_later_resolves_the_reference(
    kube: Kube, namespace: str, running_operator: Operator
) -> None:
    """And counts who uses it; removed while in use, it goes on and is missed in the status."""
    manifest, shared = policy(namespace, cacheProfileRef={"name": "shared"}), profile(namespace)
    kube.apply(manifest).good()
    assert condition(judged(kube, manifest), "ResolvedRefs")["reason"] == "CacheProfileNotFound"

    kube.apply(shared).good()
    found = awaited(kube, manifest, "the profile", lambda found: condition(found, "ResolvedRefs")["status"] == "True")
    awaited(kube, shared, "its use", lambda found: found.get("status", {}).get("usedBy") == 1)
    version = found["status"]["distribution"]["version"]
    kube.delete(shared).good()

    found = awaited(kube, manifest, "the loss", lambda found: condition(found, "ResolvedRefs")["status"] == "False")
    assert found["status"]["distribution"]["version"] == version


def test_a_tenants_profile_with_a_store_is_refused(kube: Kube, namespace: str, running_operator: Operator) -> None:
    """The service opens stores for platform namespaces only."""
    manifest = profile(namespace, store={"type": "Redis", "endpoints": ["redis:6379"]})
    kube.apply(manifest).good()

    assert condition(judged(kube, manifest), "Accepted")["reason"] == "NotAllowed"


def test_a_foreign_condition_is_kept(kube: Kube, namespace: str, running_operator: Operator) -> None:
    """Each owner has its own conditions, by server-side apply."""
    manifest = policy(namespace)
    kube.apply(manifest).good()
    judged(kube, manifest)
    theirs = {
        "type": "example.com/Reviewed",
        "status": "True",
        "reason": "Reviewed",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    bare = {key: manifest[key] for key in ("apiVersion", "kind", "metadata")}
    url = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/ratelimitpolicies/checkout/status"
    kube.request(
        "PATCH",
        f"{url}?fieldManager=reviewer",
        bare | {"status": {"conditions": [theirs]}},
        "application/apply-patch+yaml",
    ).good()

    kube.merge(manifest, {"spec": {"mode": "Shadow"}}).good()
    found = judged(kube, manifest)

    assert condition(found, "example.com/Reviewed")["status"] == "True"
    assert condition(found, "Accepted")["observedGeneration"] == 2


def test_nothing_is_added_to_the_users_objects(kube: Kube, namespace: str, running_operator: Operator) -> None:
    """No finalizer, no annotation: a policy is gone as soon as it is deleted."""
    manifest = policy(namespace)
    kube.apply(manifest).good()
    metadata = judged(kube, manifest)["metadata"]

    assert "finalizers" not in metadata
    assert "annotations" not in metadata
    kube.delete(manifest).good()
    assert kube.get(f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/ratelimitpolicies/checkout").code == 404


def test_an_idle_operator_writes_nothing(api: ApiServer, running_operator: Operator) -> None:
    """Only the Lease is renewed, and lists are read."""
    eventually("quiet", lambda: _is_quiet(api), 60)


def _is_quiet(api: ApiServer) -> bool:
    """Whether no status was written while the Lease was renewed five times."""
    since = api.mark()
    eventually("five renewals", lambda: sum("leases" in each.uri for each in _writes(api, since)) >= 5, 60)
    return all("leases" in each.uri for each in _writes(api, since))


def _writes(api: ApiServer, since: int) -> list[Any]:
    return [each for each in api.requests(since) if each.verb not in ("get", "list", "watch")]


def test_the_kill_switch_is_seen(kube: Kube, running_operator: Operator) -> None:
    """`kubectl` turns it; the metric shows it; without the ConfigMap limits are enforced."""
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tidegate-settings", "namespace": NAMESPACE},
        "data": {"enforcement": "Shadow"},
    }
    assert running_operator.metric("enforcement_shadow") == 0

    kube.apply(settings).good()
    eventually("Shadow", lambda: running_operator.metric("enforcement_shadow") == 1, 30)
    kube.delete(settings).good()

    eventually("Enforce", lambda: running_operator.metric("enforcement_shadow") == 0, 30)
