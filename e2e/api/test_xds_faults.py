"""What goes wrong on the way to a replica, with a whole operator and whole services: refusals, silence, size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from e2e.api.test_replicas import limit, programmed
from e2e.api.test_status import Manifest, awaited, policy
from e2e.support.ads_follower import AdsFollower, refuse, refusing
from e2e.support.api_server import ApiServer
from e2e.support.kube import Kube, condition
from e2e.support.operators import Operator, operator
from e2e.support.processes import eventually
from e2e.support.replicas import Replica, replica
from ratelimit_operator.plan.distribution import resource_of
from ratelimit_operator.xds.subscription import MAX_NACKS_IN_A_ROW
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.wire.xds.discovery import DiscoveryRequest, DiscoveryResponse
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE
from support.ads_client import AdsClient


class Plane:
    """One operator and two replicas; a test adds the third."""

    def __init__(self, running: Operator, replicas: list[Replica]) -> None:
        self.operator = running
        self.replicas = replicas


@pytest.fixture(scope="module")
def plane(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One for all tests of the module; no policy of another test is left."""
    kube, folder = api.kube(), tmp_path_factory.mktemp("plane")
    for each in kube.get("/apis/tidegate.dev/v1alpha1/ratelimitpolicies").good()["items"]:
        kube.delete({"apiVersion": "tidegate.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": each["metadata"]})
    with ExitStack() as parts:
        running = parts.enter_context(operator(api, folder))
        eventually("the operator to lead", lambda: running.is_ready and running.leads, 60)
        replicas = [parts.enter_context(replica(folder, f"whole-{number}", [running.xds])) for number in range(2)]
        eventually("two streams", lambda: running.metric("xds_clients") == 2, 60)
        yield Plane(running, replicas)


def following(plane: Plane, node: str) -> AdsFollower:
    """The third replica."""
    return AdsFollower(plane.operator.xds, node)


def version_to_come(kube: Kube, manifest: Manifest) -> str:
    """Version that a spec will have when it is applied to the object: the hash of what is applied."""
    metadata = {key: kube.read(manifest)["metadata"][key] for key in ("name", "namespace", "creationTimestamp")}
    found, problems = decode_manifest({**manifest, "metadata": metadata})
    assert found is not None, problems
    return resource_of(found).version


def running(kube: Kube, manifest: Manifest, replicas: int, timeout_s: float = 60) -> None:
    """Wait until that many replicas run the object's newest form, whatever the others do."""

    def holds(found: Manifest) -> bool:
        told = (found.get("status") or {}).get("distribution") or {}
        return (told.get("generation"), told.get("acked")) == (found["metadata"]["generation"], replicas)

    awaited(kube, manifest, f"{replicas} replicas", holds, timeout_s)


def refused(kube: Kube, manifest: Manifest, reason: str, summary: str) -> Manifest:
    """The object, once its newest form is Programmed=False for that reason."""
    return awaited(
        kube,
        manifest,
        f"{reason} {summary}",
        lambda found: (
            condition(found, "Programmed").get("reason") == reason
            and condition(found, "Programmed")["observedGeneration"] == found["metadata"]["generation"]
            and found["status"]["distribution"]["summary"] == summary
        ),
        60,
    )


def test_a_refusal_by_one_of_three_is_its_own_matter(kube: Kube, namespace: str, plane: Plane) -> None:
    """Two of three run the new form and limit by it; a policy beside it is on all; without the one, all is well."""
    manifest, beside = policy(namespace), policy(namespace, "beside", f"{namespace}.beside")
    kube.apply(manifest).good()
    with following(plane, "odd") as odd:
        programmed(kube, manifest)
        limit(manifest, 3)
        odd.answer = refusing(f"{namespace}/checkout", version_to_come(kube, manifest))
        kube.apply(manifest).good()
        kube.apply(beside).good()

        refused(kube, manifest, "PartiallyProgrammed", "2/3")
        programmed(kube, beside)
        assert plane.operator.metric("quarantined") == 0
        assert [each.admits(f"{namespace}.checkout", user="ann") for each in plane.replicas] == [3, 3]
    programmed(kube, manifest, replicas=2)


def test_a_storm_of_refusals_ends_and_takes_no_limit_away(kube: Kube, namespace: str, plane: Plane) -> None:
    """A foreign client refuses whatever comes: it is left alone after so many, and whole replicas have what is new."""
    manifest, after = policy(namespace), policy(namespace, "after", f"{namespace}.after")
    kube.apply(manifest).good()
    programmed(kube, manifest, replicas=2)
    before = plane.operator.metric("xds_responses_total", 'result="nack"')
    with following(plane, "foreign") as foreign:
        foreign.answer = refuse
        limit(manifest, 4)
        kube.apply(manifest).good()
        running(kube, manifest, 2)
        kube.apply(after).good()
        running(kube, after, 2)

        # Once when it came, and for each of the two changes.
        refusals = plane.operator.metric("xds_responses_total", 'result="nack"') - before
        assert 0 < refusals <= 3 * MAX_NACKS_IN_A_ROW
        assert [each.admits(f"{namespace}.checkout", user="ann") for each in plane.replicas] == [4, 4]
    programmed(kube, manifest, replicas=2)
    programmed(kube, after, replicas=2)


def test_a_form_that_most_refuse_is_rejected_and_the_last_one_stays(kube: Kube, namespace: str, plane: Plane) -> None:
    """Two of four cannot run it: Rejected with what they say, and the former limit is in force everywhere."""
    manifest = policy(namespace)
    kube.apply(manifest).good()
    with following(plane, "odd-0") as first, following(plane, "odd-1") as second:
        programmed(kube, manifest, replicas=4)
        limit(manifest, 50)
        first.answer = second.answer = refusing(f"{namespace}/checkout", version_to_come(kube, manifest))
        # A replica that takes it before the refusals come is given the former form again.
        kube.apply(manifest).good()

        found = awaited(
            kube,
            manifest,
            "the refusal",
            lambda found: condition(found, "Programmed").get("reason") == "Rejected",
            60,
        )
        assert "cannot be run here" in found["status"]["distribution"]["lastError"]
        assert plane.operator.metric("quarantined") == 1
        eventually(
            "the former limit",
            lambda: [each.admits(f"{namespace}.checkout", user="bob") for each in plane.replicas] in ([5, 5], [0, 0]),
            30,
        )
        limit(manifest, 6)
        kube.apply(manifest).good()
        programmed(kube, manifest, replicas=4)
        assert plane.operator.metric("quarantined") == 0


def test_a_stale_nonce_acknowledges_nothing(kube: Kube, namespace: str, plane: Plane) -> None:
    """An answer to an older response is passed over: the count waits for the true one."""
    manifest, beside = policy(namespace), policy(namespace, "beside", f"{namespace}.beside")
    kube.apply(manifest).good()
    with following(plane, "late") as late:
        programmed(kube, manifest)

        async def stale(client: AdsClient, response: DiscoveryResponse) -> None:
            await client.send(DiscoveryRequest(RESOURCE_TYPE, response.version_info, response_nonce="0"))

        late.answer = stale
        kube.apply(beside).good()
        running(kube, beside, 2)
        eventually("the response", lambda: "beside" in str(late.responses[-1].resources), 60)
        limit(manifest, 3)
        kube.apply(manifest).good()
        refused(kube, manifest, "PartiallyProgrammed", "2/3")
        assert kube.read(beside)["status"]["distribution"]["summary"] == "2/3"
    programmed(kube, manifest, replicas=2)


def test_a_slow_reader_of_megabytes_delays_nobody(kube: Kube, namespace: str, plane: Plane) -> None:
    """A set of 5 MiB reaches those that read; the one that does not is sent the newest set when it reads again."""
    big = [_big(namespace, number) for number in range(17)]
    with following(plane, "slow") as slow:
        eventually("three streams", lambda: plane.operator.metric("xds_clients") == 3, 60)
        slow.reads = False
        for each in big:
            kube.apply(each).good()
        running(kube, big[-1], 2, 120)
        limit(big[0], 3)
        kube.apply(big[0]).good()
        running(kube, big[0], 2, 120)
        assert plane.replicas[0].admits(f"{namespace}.big0", **_entries(0, 0)) == 3

        came = len(slow.responses)
        slow.reads = True
        programmed(kube, big[0], replicas=3, timeout_s=120)
        assert sum(map(len, slow.responses[-1].resources)) > 5 * 2**20
        # What was under way, what it had missed, and what came of connecting anew, but not one for each change.
        assert len(slow.responses) - came <= 6
    for each in big:
        kube.delete(each)


def _entries(number: int, rule: int) -> dict[str, str]:
    return {f"key{entry}".ljust(100, "k"): f"{number}-{rule}-".ljust(500, "v") for entry in range(8)}


def _big(namespace: str, number: int) -> Manifest:
    """A policy of 330 kB."""
    rules: list[dict[str, Any]] = [
        {
            "name": f"r{rule}",
            "match": [{"key": key, "value": value} for key, value in _entries(number, rule).items()],
            "limits": [{"requests": 5, "window": "1h"}],
        }
        for rule in range(64)
    ]
    return policy(namespace, f"big{number}", f"{namespace}.big{number}") | {
        "spec": {"domain": f"{namespace}.big{number}", "rules": rules}
    }
