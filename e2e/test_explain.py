"""The law of `tidegate explain`: what Envoy and the service decide is what it foresees, for random policies."""

from __future__ import annotations

import ipaddress
import json
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from e2e.support.caller import get
from e2e.support.envoy import Config, Envoy, envoy
from e2e.support.rendered import address, host, listener, patient, route, upstream_cluster
from e2e.support.service import service
from ratelimit_service.policy.encode import encode
from ratelimit_service.policy.match import Entries
from ratelimit_service.policy.render.actions import entries_of, union
from ratelimit_service.policy.render.envoy import render_domain, render_gateway
from ratelimit_service.policy.render.local import LOCAL_FILTER
from ratelimit_service.policy.render.parts import ServiceAddress
from ratelimit_service.policy.render.requests import HttpRequest, descriptors
from ratelimit_service.policy.targets.precedence import Level
from support.worlds import PREFIXES, World, foreseen, local_at, worlds

WORLDS = 24
LimitsOf = Callable[[World, str], list[Config]]
Model = Callable[[HttpRequest, Sequence[Config]], Sequence[Entries]]


def limits_at(world: World, path: str) -> list[Config]:
    """What `tidegate render envoy` puts where the path passes."""
    if world.domain != "tidegate.dev":
        limits = render_domain(world.domain, world.policies, ServiceAddress("127.0.0.1", 1)).config["rate_limits"]
        assert isinstance(limits, list)
        return limits
    return union(world.coverage.at(world.point(path)))


def settings_at(world: World, path: str) -> Config:
    """All that is rendered where the path passes."""
    local = local_at(world, path)
    more: Config = {} if local is None else {"typed_per_filter_config": {LOCAL_FILTER: local}}
    return {"rate_limits": limits_at(world, path), **more}


def configured(every: Sequence[World], service_port: int, upstream_port: int) -> Config:
    """One Envoy with a listener for each world."""
    where = ServiceAddress("127.0.0.1", service_port)
    listeners, clusters = [], []
    for world in every:
        if world.domain == "tidegate.dev":
            config = render_gateway(world.gateway, world.coverage, where).config
        else:
            config = render_domain(world.domain, world.policies, where).config
        routes = [route(prefix, settings_at(world, prefix)) for prefix in PREFIXES]
        hosts = [host("all", ["*"], [*routes, route("/")], settings_at(world, "/"))]
        filters, clusters = config["http_filters"], config["clusters"]
        assert isinstance(filters, list)
        listeners.append({**listener([patient(each) for each in filters], hosts), "name": f"w{world.number}"})
    assert isinstance(clusters, list)
    return {
        "static_resources": {"listeners": listeners, "clusters": [*clusters, upstream_cluster(upstream_port)]},
        "admin": {"address": address(0)},
    }


def ports(asking: Envoy) -> dict[str, int]:
    """Where each listener is."""
    with urllib.request.urlopen(f"http://{asking.admin}/listeners?format=json", timeout=10) as response:
        found = json.load(response)["listener_statuses"]
    return {each["name"]: int(each["local_address"]["socket_address"]["port_value"]) for each in found}


def statuses_of(world: World, port: int) -> list[int]:
    """What each request of a world gets."""
    return [
        get(
            ("127.0.0.1", port),
            sent.path,
            {**dict(sent.headers), "x-forwarded-for": sent.remote},
            method=sent.method,
        ).status
        for sent in world.requests
    ]


def path_with_query(request: HttpRequest, limits: Sequence[Config]) -> Sequence[Entries]:
    """Planted: the path keeps its query string."""
    return descriptors(msgspec.structs.replace(request, target=request.target.replace(b"?", b"%")), limits)


def addresses_unmasked(request: HttpRequest, limits: Sequence[Config]) -> Sequence[Entries]:
    """Planted: every address of a network counts alone."""
    network = str(ipaddress.ip_address(request.remote))
    return [
        tuple((key, network.encode() if key == b"masked_remote_address" else value) for key, value in entries)
        for entries in descriptors(request, limits)
    ]


def missing_is_empty(request: HttpRequest, limits: Sequence[Config]) -> Sequence[Entries]:
    """Planted: a header that is not there is sent as an empty one."""
    given_names = {name for name, _ in request.headers}
    added = tuple((name, b"") for name in (b"x-a", b"x-b") if name not in given_names)
    return descriptors(msgspec.structs.replace(request, headers=(*request.headers, *added)), limits)


def only_own_level(world: World, path: str) -> list[Config]:
    """Planted: a route's list leaves out what holds on the Gateway."""
    standing = world.coverage.at(world.point(path)) if world.domain == "tidegate.dev" else ()
    routes = [each for each in standing if each.level >= Level.ROUTE]
    return [entry for each in routes for entry in entries_of(each.policy, each.rules)] or limits_at(world, path)


PLANTED: tuple[tuple[LimitsOf, Model], ...] = (
    (limits_at, path_with_query),
    (limits_at, addresses_unmasked),
    (limits_at, missing_is_empty),
    (only_own_level, descriptors),
)


def test_explain_foresees_what_envoy_and_the_service_decide(upstream_port: int) -> None:
    """Each status of each request, in two dozen worlds at a time; and no planted mistake goes unseen in all of them."""
    caught: set[int] = set()

    @settings(
        max_examples=3,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def hold(data: st.DataObject) -> None:
        every = [data.draw(worlds(number)) for number in range(WORLDS)]
        seen = statuses_in(every, upstream_port)
        for world, statuses in zip(every, seen, strict=True):
            assert foreseen(world, limits_at) == statuses, world
        for place, (limits_of, model) in enumerate(PLANTED):
            if [foreseen(world, limits_of, model) for world in every] != seen:
                caught.add(place)
        if [foreseen(world, limits_at, has_local=False) for world in every] != seen:
            caught.add(len(PLANTED))

    hold()
    assert caught == set(range(len(PLANTED) + 1))


def statuses_in(every: Sequence[World], upstream_port: int) -> list[list[int]]:
    """What a real Envoy and a real service answer, all worlds in one of each."""
    policies = [encode(policy) for world in every for policy in world.policies]
    with (
        tempfile.TemporaryDirectory() as name,
        service(Path(name), policies, "native") as asked,
        envoy(Path(name), configured(every, asked.grpc_port, upstream_port)) as asking,
    ):
        where = ports(asking)
        seen = [statuses_of(world, where[f"w{world.number}"]) for world in every]
        assert asking.stat("ratelimit.error") == 0
    return seen
