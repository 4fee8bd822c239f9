"""Every common kind of `rate_limits` action, through a real Envoy: 200 while the limit lasts, then 429."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.support.caller import get, statuses
from e2e.support.envoy import Envoy, Filter, actions, bootstrap, envoy, header, header_to_metadata, per_route, route
from e2e.support.policies import any_of, exactly, exempt, policy, rule
from e2e.support.service import Service, service

DOMAIN = "e2e.actions"

POLICIES = [
    policy(
        DOMAIN,
        rule("per-address", any_of("remote_address"), 3),
        rule("per-network", any_of("masked_remote_address"), 3),
        rule("per-user", any_of("user"), 3),
        exempt("owner", [exactly("user", "root")], "Allow"),
        exempt("banned", [exactly("user", "mallory")], "Deny"),
        rule("per-path", any_of("path"), 2),
        rule("static", [exactly("generic_key", "everyone")], 2),
        rule("named-static", [exactly("area", "shop")], 4),
        rule("per-tenant", any_of("tenant"), 2),
        rule("crawlers", [exactly("header_match", "crawler")], 1),
        rule("per-api-key", any_of("api_key"), 2),
        rule("pair", [exactly("area", "pair"), *any_of("user")], 2),
        rule("gold", [exactly("plan", "gold"), *any_of("user")], 4),
        rule("free", [exactly("plan", "free"), *any_of("user")], 1),
        rule("trial", any_of("trial"), 1, mode="Shadow"),
    ),
    policy(f"{DOMAIN}.other", rule("per-user", any_of("user"), 1)),
]

USER = header("x-user", "user")
TENANT = {"descriptor_key": "tenant", "metadata_key": {"key": "e2e.tenant", "path": [{"key": "name"}]}}
CRAWLER = {
    "descriptor_value": "crawler",
    "headers": [{"name": "user-agent", "string_match": {"contains": "bot"}}],
}


def static(key: str, value: str) -> dict[str, object]:
    return {"generic_key": {"descriptor_key": key, "descriptor_value": value}}


ROUTES = [
    route("/address", actions({"remote_address": {}})),
    route("/network", actions({"masked_remote_address": {"v4_prefix_mask_len": 24}})),
    route("/path", actions(header(":path", "path"))),
    route("/static", actions({"generic_key": {"descriptor_value": "everyone"}})),
    route("/metadata", actions({"metadata": TENANT})),
    route("/crawlers", actions({"header_value_match": CRAWLER})),
    route("/query", actions({"query_parameters": {"query_parameter_name": "key", "descriptor_key": "api_key"}})),
    route("/pair", actions(static("area", "pair"), USER)),
    route("/plan", actions(header("x-plan", "plan"), USER)),
    route("/several", actions(USER), actions(static("area", "shop"))),
    route("/trial", actions(header("x-trial", "trial"))),
    per_route("/override", actions(USER), domain=f"{DOMAIN}.other"),
    route("/"),
]


@pytest.fixture(scope="module")
def limited(
    tmp_path_factory: pytest.TempPathFactory, transport: str, upstream_port: int
) -> Iterator[tuple[Envoy, Service]]:
    """An Envoy with every kind of action, and the service that it asks."""
    folder = tmp_path_factory.mktemp("actions")
    with service(folder, POLICIES, transport) as asked:
        config = bootstrap(
            service_port=asked.grpc_port,
            upstream_port=upstream_port,
            # Statuses are exact only if no call is lost to Envoy's 20 ms on a busy machine.
            filter_=Filter(DOMAIN, deny=True, timeout="5s"),
            routes=ROUTES,
            vhost_limits=[actions(USER)],
            filters=[header_to_metadata("x-tenant", "e2e.tenant", "name")],
        )
        with envoy(folder, config) as asking:
            yield asking, asked


@pytest.fixture
def address(limited: tuple[Envoy, Service]) -> tuple[str, int]:
    """Where Envoy listens."""
    return limited[0].address


def test_remote_address_limits_each_address_alone(address: tuple[str, int]) -> None:
    """Three requests from one address pass and the fourth does not; another address has its own three."""
    first = [get(address, "/address", source="127.0.0.2").status for _ in range(4)]
    second = [get(address, "/address", source="127.0.0.3").status for _ in range(4)]

    assert first == [200, 200, 200, 429]
    assert second == [200, 200, 200, 429]


def test_masked_remote_address_limits_a_network(address: tuple[str, int]) -> None:
    """Addresses of one /24 share a count; the next network has its own."""
    network = [get(address, "/network", source=f"127.0.1.{last}").status for last in (1, 2, 3, 4)]
    other = get(address, "/network", source="127.0.2.1").status

    assert network == [200, 200, 200, 429]
    assert other == 200


def test_a_header_limits_each_value_alone(address: tuple[str, int]) -> None:
    """The virtual host's own list applies where a route has none."""
    assert statuses(address, 4, headers={"x-user": "ann"}) == [200, 200, 200, 429]
    assert statuses(address, 1, headers={"x-user": "bob"}) == [200]


def test_a_request_without_the_header_is_not_limited(address: tuple[str, int]) -> None:
    """Envoy sends no descriptor for an action whose source is missing."""
    assert statuses(address, 6) == [200] * 6


def test_a_value_that_is_no_utf8_is_limited_like_any_other(limited: tuple[Envoy, Service]) -> None:
    """Envoy forwards the bytes as they are; they are counted, and no call to the service fails."""
    asking, _ = limited
    failed_before = asking.stat("ratelimit.error")
    strange, near = b"bo\xffb", b"bo\xfeb"

    assert statuses(asking.address, 4, headers={"x-user": strange}) == [200, 200, 200, 429]
    assert statuses(asking.address, 1, headers={"x-user": near}) == [200]
    assert asking.stat("ratelimit.error") == failed_before


def test_a_path_is_limited_with_its_query_string(address: tuple[str, int]) -> None:
    """`:path` holds the query string, so two queries are two keys."""
    assert statuses(address, 3, "/path/a") == [200, 200, 429]
    assert statuses(address, 3, "/path/a?x=1") == [200, 200, 429]


def test_a_generic_key_limits_all_requests_of_the_route(address: tuple[str, int]) -> None:
    """Who asks does not matter."""
    senders = [get(address, "/static", {"x-user": name}).status for name in ("ann", "bob", "eve")]

    assert senders == [200, 200, 429]


def test_metadata_of_another_filter_limits_each_value(address: tuple[str, int]) -> None:
    """A value that a filter before this one has put into dynamic metadata is a key like any other."""
    assert statuses(address, 3, "/metadata", {"x-tenant": "acme"}) == [200, 200, 429]
    assert statuses(address, 1, "/metadata", {"x-tenant": "initech"}) == [200]


def test_a_header_match_limits_only_what_matches(address: tuple[str, int]) -> None:
    """Requests that the action does not match carry no descriptor."""
    assert statuses(address, 2, "/crawlers", {"user-agent": "some bot"}) == [200, 429]
    assert statuses(address, 2, "/crawlers", {"user-agent": "a browser"}) == [200, 200]


def test_a_query_parameter_limits_each_value(address: tuple[str, int]) -> None:
    """The rest of the query string does not matter."""
    assert [get(address, f"/query?key=k1&n={number}").status for number in range(3)] == [200, 200, 429]
    assert get(address, "/query?key=k2").status == 200


def test_two_actions_make_one_descriptor_of_two_entries(address: tuple[str, int]) -> None:
    """The chain matches whole: another user has another count."""
    assert statuses(address, 3, "/pair", {"x-user": "pia"}) == [200, 200, 429]
    assert statuses(address, 1, "/pair", {"x-user": "paul"}) == [200]


def test_plans_have_limits_of_their_own(address: tuple[str, int]) -> None:
    """The value of the first entry picks the rule."""
    assert statuses(address, 5, "/plan", {"x-plan": "gold", "x-user": "gus"}) == [200, 200, 200, 200, 429]
    assert statuses(address, 2, "/plan", {"x-plan": "free", "x-user": "gus"}) == [200, 429]


def test_a_denied_request_costs_nothing_in_its_other_descriptors(address: tuple[str, int]) -> None:
    """Two descriptors: three of user sam pass and five are denied, which leaves the shared four one more."""
    assert statuses(address, 8, "/several", {"x-user": "sam"}) == [200, 200, 200, 429, 429, 429, 429, 429]
    assert statuses(address, 2, "/several", {"x-user": "tom"}) == [200, 429]


def test_a_shadow_rule_reports_and_rejects_nothing(limited: tuple[Envoy, Service]) -> None:
    """Every request passes; the metric says which would not have."""
    asking, asked = limited

    assert statuses(asking.address, 3, "/trial", {"x-trial": "t"}) == [200, 200, 200]
    assert asked.metric("tidegate_decisions_total", 'rule="trial",result="shadow_over"') == 2


def test_allow_and_deny_need_no_count(address: tuple[str, int]) -> None:
    """An exempt value always passes, a banned one never does."""
    assert statuses(address, 5, headers={"x-user": "root"}) == [200] * 5
    assert statuses(address, 2, headers={"x-user": "mallory"}) == [429, 429]


def test_a_route_overrides_domain_and_actions(address: tuple[str, int]) -> None:
    """RateLimitPerRoute asks in another domain, whose limit is 1; the other route's count is untouched."""
    assert statuses(address, 2, "/override", {"x-user": "olga"}) == [200, 429]
    assert statuses(address, 4, headers={"x-user": "olga"}) == [200, 200, 200, 429]


def test_a_denied_request_names_the_rate_limit(address: tuple[str, int]) -> None:
    """Envoy marks what it answered itself, so that callers can tell it from the upstream's own 429."""
    answers = [get(address, headers={"x-user": "una"}) for _ in range(4)]

    assert [answer.headers.get("x-envoy-ratelimited") for answer in answers] == [None, None, None, "true"]
    assert [answer.body for answer in answers] == [b"GET /\n"] * 3 + [b""]
