"""Put rendered parts into a whole static Envoy configuration, so that nobody has to paste them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

from ratelimit_service.policy.render.actions import Config
from ratelimit_service.policy.render.parts import CLUSTER

MANAGER: Final = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


class NoPlace(ValueError):
    """A configuration that the parts cannot go into; the message says what is missing."""


def put_into(bootstrap: object, parts: Config) -> Config:
    """A copy of a static configuration with the parts of `render_domain` in their places.

    The filter goes last before the router of every HTTP connection manager; `rate_limits` join those of every virtual
    host, and of every route that has a list of its own.

    Raises:
        NoPlace: It is no static configuration with HTTP routes, or the parts are there already.
    """
    made = copy.deepcopy(bootstrap)
    if not isinstance(made, dict) or not isinstance(made.get("static_resources"), dict):
        raise NoPlace("it has no static_resources: only a static configuration can take the parts")
    static = made["static_resources"]
    clusters = static.setdefault("clusters", [])
    if any(isinstance(each, dict) and each.get("name") == CLUSTER for each in clusters):
        raise NoPlace(f"it has a cluster `{CLUSTER}` already")
    managers = list(_managers(static))
    hosts = [host for manager in managers for host in _hosts(manager)]
    if not hosts:
        raise NoPlace("it has no HTTP connection manager with routes of its own")
    clusters.extend(copy.deepcopy(parts["clusters"]))
    for manager in managers:
        filters = manager.setdefault("http_filters", [])
        new = parts["http_filters"]
        assert isinstance(new, list)
        filters[-1:-1] = copy.deepcopy(new)
    for host in hosts:
        _join(host, parts)
        for route in host.get("routes", []):
            action = route.get("route")
            if isinstance(action, dict) and action.get("rate_limits"):
                _join(action, parts)
    return made


def _managers(static: dict[str, object]) -> Iterator[dict[str, list[Config]]]:
    """The settings of every HTTP connection manager, wherever it is nested."""
    waiting: list[object] = [static.get("listeners")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("@type") == MANAGER:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _hosts(manager: dict[str, list[Config]]) -> list[dict[str, list[Config]]]:
    configuration = manager.get("route_config")
    return configuration.get("virtual_hosts", []) if isinstance(configuration, dict) else []


def _join(place: dict[str, list[Config]], parts: Config) -> None:
    limits = parts["rate_limits"]
    assert isinstance(limits, list)
    local = parts.get("typed_per_filter_config")
    if isinstance(local, dict) and "routes" in place:
        # A virtual host; its routes take these settings unless they have their own for the same filter.
        whole: dict[str, Any] = place
        whole["typed_per_filter_config"] = {**whole.get("typed_per_filter_config", {}), **copy.deepcopy(local)}
    place["rate_limits"] = [*place.get("rate_limits", []), *copy.deepcopy(limits)]
