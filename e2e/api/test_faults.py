"""What breaks between the operator and the API server, through a proxy, and what must not come of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.api.test_status import awaited, judged, policy, profile
from e2e.support.api_proxy import Proxy, api_proxy
from e2e.support.api_server import ApiServer
from e2e.support.kube import Kube, condition
from e2e.support.operators import QUICK, Operator, operator
from e2e.support.processes import eventually


@pytest.fixture
def proxy(api: ApiServer) -> Iterator[Proxy]:
    with api_proxy(api) as running:
        yield running


@pytest.fixture
def slow_lists() -> tuple[str, ...]:
    """Lists so rare that what a test sees did not come of one."""
    flags = list(QUICK)
    flags[flags.index("--list-interval") + 1] = "600s"
    return tuple(flags)


def _leads(running: Operator) -> None:
    eventually("the operator to lead", lambda: running.is_ready and running.leads, 60)


def _watches(proxy: Proxy) -> None:
    """Wait until policies are watched: from then on a change is told by an event, or by a list of ours, if at all."""
    eventually("the watch", lambda: any("/ratelimitpolicies?" in each for each in proxy.watched), 60)


def _refuses_watches(proxy: Proxy) -> bool:
    """Whether a watch was refused; one that was just being opened is ended, too."""
    proxy.end_watches(410)
    return proxy.refused > 0


def _versions(running: Operator) -> str:
    """What is given to the replicas."""
    text = running.page("/metrics")[1]
    return next((line for line in text.splitlines() if line.startswith("tidegate_operator_snapshot_info")), "")


def test_a_deletion_in_the_gap_of_a_watch_leaves_no_ghost(
    api: ApiServer, kube: Kube, namespace: str, proxy: Proxy, tmp_path: Path, slow_lists: tuple[str, ...]
) -> None:
    """410 and a list without the object: no event ever tells of it, and its domain is free for the next."""
    gone, kept = policy(namespace, "gone"), policy(namespace, "kept")
    with operator(api, tmp_path, server=proxy.url, quick=slow_lists) as running:
        _leads(running)
        kube.apply(gone).good()
        judged(kube, gone)
        kube.apply(kept).good()
        awaited(kube, kept, "the loss", lambda found: found.get("status", {}).get("effective", {}).get("overriddenBy"))

        # Watches are refused until the object is gone; then they begin anew, from a list.
        proxy.refuse = lambda _method, path: 500 if "watch=true" in path else 0
        eventually("the watches to be refused", lambda: _refuses_watches(proxy), 60)
        kube.delete(gone).good()
        proxy.refuse = lambda _method, _path: 0

        awaited(kube, kept, "the promotion", lambda found: found["status"]["effective"]["ruleCount"] == 1, 60)
        assert running.metric("ghost_objects_total", 'kind="ratelimitpolicies"') == 1


def test_a_kind_that_cannot_be_listed_holds_the_push(
    api: ApiServer, kube: Kube, namespace: str, proxy: Proxy, tmp_path: Path
) -> None:
    """A restart with one of two kinds forbidden: not ready, no stream is answered, no status is written."""
    manifest = policy(namespace, cacheProfileRef={"name": "shared"})
    kube.apply(profile(namespace)).good()
    kube.apply(manifest).good()
    with operator(api, tmp_path, name="first") as running:
        _leads(running)
        before = awaited(kube, manifest, "a status", lambda found: found.get("status"))["status"]
        version = _versions(running)

    proxy.refuse = lambda _method, path: 403 if "/cacheprofiles" in path else 0
    with operator(api, tmp_path, name="second", server=proxy.url) as running:
        eventually("the Lease", lambda: running.leads, 60)
        eventually("the refusal", lambda: "403" in running.page("/readyz")[1], 30)
        assert running.page("/readyz")[0] == 503
        assert _versions(running) == ""
        assert kube.read(manifest)["status"] == before

        proxy.refuse = lambda _method, _path: 0

        eventually("the push", lambda: _versions(running) == version, 60)
        assert kube.read(manifest)["status"]["distribution"] == before["distribution"]


def test_an_api_server_that_fails_for_a_while_changes_nothing(
    api: ApiServer, kube: Kube, namespace: str, proxy: Proxy, tmp_path: Path
) -> None:
    """500 and 429 to everything: what was given out stays, and what changed meanwhile is caught up with."""
    manifest = policy(namespace)
    kube.apply(manifest).good()
    with operator(api, tmp_path, server=proxy.url) as running:
        _leads(running)
        judged(kube, manifest)
        version = _versions(running)
        for code in (500, 429):
            proxy.refused = 0
            proxy.refuse = lambda _method, _path, code=code: code  # type: ignore[misc]
            proxy.end_watches()
            kube.merge(manifest, {"spec": {"mode": "Shadow" if code == 500 else "Enforce"}}).good()
            eventually("refusals", lambda: proxy.refused > 5, 30)
            eventually("the hold", lambda: not running.is_ready, 30)
            assert _versions(running) == version
            assert running.page("/livez")[0] == 200

            proxy.refuse = lambda _method, _path: 0

            judged(kube, manifest)
            eventually("the operator to be ready", lambda: running.is_ready, 60)
            version = _versions(running)


def test_a_watch_that_falls_silent_is_overtaken_by_lists(
    api: ApiServer, kube: Kube, namespace: str, proxy: Proxy, tmp_path: Path
) -> None:
    """The connection stands and says nothing: a list finds what no event tells."""
    manifest = policy(namespace)
    with operator(api, tmp_path, server=proxy.url) as running:
        _leads(running)
        _watches(proxy)
        proxy.rewrite = lambda _path, _line: []

        kube.apply(manifest).good()

        assert condition(judged(kube, manifest), "Accepted")["status"] == "True"


def test_events_that_come_twice_and_late_change_nothing(
    api: ApiServer, kube: Kube, namespace: str, proxy: Proxy, tmp_path: Path, slow_lists: tuple[str, ...]
) -> None:
    """Each event of a policy is followed by older ones, its deletion too: the newest form stays live."""
    manifest, beside = policy(namespace), policy(namespace, "beside", f"{namespace}.beside")
    seen: list[bytes] = []

    def shuffle(path: str, line: bytes) -> list[bytes]:
        if "/ratelimitpolicies" not in path or json.loads(line)["type"] == "BOOKMARK":
            return [line]
        seen.append(line)
        return [line, *seen[-3:-1]]

    with operator(api, tmp_path, server=proxy.url, quick=slow_lists) as running:
        _leads(running)
        _watches(proxy)
        proxy.rewrite = shuffle
        kube.apply(manifest).good()
        for requests in (6, 7, 8):
            manifest["spec"]["rules"][0]["limits"][0]["requests"] = requests
            kube.apply(manifest).good()
            judged(kube, manifest)
        # Whatever came late has been planned with by the time that another policy is judged.
        kube.apply(beside).good()
        judged(kube, beside)
        found = kube.read(manifest)
        assert found["status"]["distribution"]["generation"] == found["metadata"]["generation"]
        kube.delete(manifest).good()
        eventually("the deletion", lambda: running.metric("policies", 'condition="Accepted"') == _others(kube), 30)
        kube.merge(beside, {"spec": {"mode": "Shadow"}}).good()
        judged(kube, beside)
        assert running.metric("policies", 'condition="Accepted"') == _others(kube)


def _others(kube: Kube) -> float:
    """Policies of all tests whose status has a condition Accepted."""
    items = kube.get("/apis/tidegate.dev/v1alpha1/ratelimitpolicies").good()["items"]
    return float(sum(bool(condition(each, "Accepted")) for each in items))


def test_a_policy_that_flaps_costs_few_writes_and_two_events(
    api: ApiServer, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    """Good and bad, forty times: the last state is right, and the API server was spared."""
    manifest = policy(namespace)
    with operator(api, tmp_path) as running:
        _leads(running)
        since = api.mark()
        for _ in range(20):
            for replaces in (["nobody"], ["per-other"]):
                manifest["spec"]["rules"][0]["replaces"] = replaces
                kube.apply(manifest).good()
        del manifest["spec"]["rules"][0]["replaces"]
        kube.apply(manifest).good()
        found = judged(kube, manifest)

    assert condition(found, "Accepted")["status"] == "True"
    writes = [each for each in api.requests(since) if "/status" in each.uri and f"/{namespace}/" in each.uri]
    assert len(writes) <= 20
    events = kube.get(f"/api/v1/namespaces/{namespace}/events").good()["items"]
    assert len(events) <= 4
