"""EnvoyPatchPolicies in both schemes of names. That Envoy Gateway obeys them is for e2e."""

from __future__ import annotations

import pytest

from ratelimit_service.policy.render.envoy_gateway import Names, host_name, listener_name, routes_name
from ratelimit_service.policy.targets.topology import Gateway, Listener

HTTP, MORE = Listener("http", 80), Listener("more", 80, hostname="a.com")
HTTPS = Listener("https", 443, "HTTPS", "a.com")
EDGE = Gateway("shop", "edge", (HTTP, MORE, HTTPS))


@pytest.mark.parametrize(
    ("listener", "names", "expected"),
    [
        (HTTP, Names.LISTENER, ("shop/edge/http", "shop/edge/http", "shop/edge/http/a_com")),
        (MORE, Names.LISTENER, ("shop/edge/http", "shop/edge/http", "shop/edge/more/a_com")),
        (HTTPS, Names.LISTENER, ("shop/edge/https", "shop/edge/https", "shop/edge/https/a_com")),
        (HTTP, Names.PORT, ("tcp-80", "http-80", "a_com")),
        (MORE, Names.PORT, ("tcp-80", "http-80", "a_com")),
        (HTTPS, Names.PORT, ("tcp-443", "shop/edge/https", "a_com")),
    ],
)
def test_resources_have_the_names_of_the_scheme(listener: Listener, names: Names, expected: tuple[str, ...]) -> None:
    """Listener, route table, virtual host; the first of several listeners on a port names what they share."""
    found = listener_name(EDGE, listener, names), routes_name(EDGE, listener, names)

    assert (*found, host_name(EDGE, listener, "a.com", names)) == expected
