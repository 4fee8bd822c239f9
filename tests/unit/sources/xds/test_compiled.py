"""A response compiled: what is taken over, what is refused and by which name."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_operator.plan.distribution import Enforcement
from ratelimit_operator.xds.forms import form_of
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import version_of
from ratelimit_service.sources.xds import compiled as compiled_module
from ratelimit_service.sources.xds.compiled import CompiledSet, RefusedSet, compile_set
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE, encode_config
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, Refusal, WireResource, encode_any, encode_resource
from support.distributions import distribution, manifest_resource, policies, policy_resource

NOTHING = CompiledSet()


def taken(*resources: bytes, before: CompiledSet = NOTHING, type_url: str = RESOURCE_TYPE) -> CompiledSet:
    found = compile_set(before, type_url, resources, CompileOptions())
    assert isinstance(found, CompiledSet), found
    return found


def refused(*resources: bytes, before: CompiledSet = NOTHING, type_url: str = RESOURCE_TYPE) -> RefusedSet:
    found = compile_set(before, type_url, resources, CompileOptions())
    assert isinstance(found, RefusedSet), found
    return found


def packed(*resources: Any) -> list[bytes]:
    return [form_of(each).packed for each in resources]


def own(kind: str, name: str, body: bytes, features: tuple[str, ...] = ()) -> bytes:
    return encode_any(RESOURCE_TYPE, encode_resource(WireResource(kind, name, "v1", features, body)))


def test_a_changed_policy_costs_its_own_domain() -> None:
    """Everything else is the very same plan."""
    first = taken(*packed(*policies(20).resources.values()))
    second = taken(*packed(*policies(20, p3=9).resources.values()), before=first)
    changed, gone = second.changed_from(first)

    assert [plan.head.name for plan in changed] == ["shop.p3"]
    assert gone == []
    assert all(second.plans[name] is first.plans[name] for name in second.plans if name != "shop.p3")
    assert second.version == version_of(list(second.plans.values())) != first.version


def test_a_deleted_policy_takes_its_domain_along() -> None:
    """And a domain of two policies stays with the other one."""
    shared = policy_resource("q", domain="shop.p0", rules=[other_rule()])
    first = taken(*packed(*policies(2).resources.values(), shared))
    second = taken(*packed(shared), before=first)
    changed, gone = second.changed_from(first)

    assert [plan.head.name for plan in changed] == ["shop.p0"]
    assert gone == ["shop.p1"]
    assert len(second.plans["shop.p0"].leaves) == 1


def other_rule() -> dict[str, Any]:
    return {"name": "other", "match": [{"key": "other", "type": "Any"}], "limits": [{"requests": 1, "window": "1m"}]}


def test_a_changed_profile_reaches_the_domains_that_use_it() -> None:
    """The heads of their plans say where they are counted."""
    using, plain = policy_resource("a", cacheProfileRef={"name": "shared"}), policy_resource("b")
    profiles = [
        manifest_resource("CacheProfile", "shared", {"store": {"type": "Redis", "endpoints": [f"redis-{n}:1"]}})
        for n in (0, 1)
    ]
    first = taken(*packed(using, plain, profiles[0]))
    second = taken(*packed(using, plain, profiles[1]), before=first)

    assert [plan.head.name for plan in second.changed_from(first)[0]] == ["shop.a"]


def test_the_kill_switch_changes_no_domain() -> None:
    """Only how everything is answered."""
    first = taken(*packed(*distribution(policy_resource("a")).resources.values()))
    second = taken(
        *packed(*distribution(policy_resource("a"), enforcement=Enforcement.SHADOW).resources.values()), before=first
    )

    assert (first.shadow, second.shadow) == (False, True)
    assert second.changed_from(first) == ([], [])
    assert second.version == first.version


def test_the_same_policies_have_the_version_that_files_give_them() -> None:
    """Whatever the order of the response, also where two of the same age meet."""
    one, two = (
        packed(*order)
        for order in ((policy_resource("a"), policy_resource("b")), (policy_resource("b"), policy_resource("a")))
    )

    assert taken(*one).version == taken(*two).version


@pytest.mark.parametrize(
    ("resource", "refusal"),
    [
        (
            own("Policy", "shop/a", b"{}", ("time-travel", "calendar", "more")),
            Refusal(
                "Policy",
                "shop/a",
                "v1",
                "",
                "needs more, time-travel, which this version of the service does not know; update it",
            ),
        ),
        (
            own("Wish", "shop/a", b"{}"),
            Refusal("Wish", "shop/a", "v1", "", "kind 'Wish' is unknown to this version of the service"),
        ),
        (
            own("Settings", "tidegate/settings", b'{"enforcement":"Perhaps"}'),
            Refusal("Settings", "tidegate/settings", "v1", "enforcement", "'Perhaps' is neither Enforce nor Shadow"),
        ),
        (
            own("Settings", "tidegate/settings", b"[]"),
            Refusal("Settings", "tidegate/settings", "v1", "enforcement", "None is neither Enforce nor Shadow"),
        ),
        (
            encode_any("other", b""),
            Refusal("", "", "", "", f"a resource of type other, not {RESOURCE_TYPE}"),
        ),
    ],
)
def test_a_resource_that_cannot_be_run_is_refused_by_name(resource: bytes, refusal: Refusal) -> None:
    """Whole: nothing of the response is taken."""
    found = refused(*packed(policy_resource("good")), resource)

    assert found.refusals == (refusal,)
    assert len(found.problems) == 1


@pytest.mark.parametrize(
    ("resource", "message"),
    [(own("Policy", "shop/a", b"{"), "its body is no JSON"), (b"\xff", "no resource: malformed message")],
)
def test_bytes_that_are_nothing_are_refused(resource: bytes, message: str) -> None:
    """With what the decoder says."""
    assert message in refused(resource).refusals[0].message


def test_a_manifest_is_refused_with_the_words_that_a_file_gets() -> None:
    """All problems, each with its path."""
    body = (
        b'{"apiVersion":"tidegate.dev/v1alpha1","kind":"RateLimitPolicy","metadata":{"name":"a"},"spec":{"domain":""}}'
    )
    found = refused(own("Policy", "shop/a", body))

    assert {refusal.path for refusal in found.refusals} >= {"spec.domain"}
    assert {(refusal.kind, refusal.name) for refusal in found.refusals} == {("Policy", "shop/a")}


def test_a_manifest_of_another_kind_is_refused() -> None:
    """What the resource says it is must be what is in it."""
    (policy,) = (policy_resource("a"),)

    assert refused(own("Profile", "shop/a", policy.body)).refusals[0].message == "is not a CacheProfile"


def test_what_only_the_compiler_sees_is_refused_by_name_too() -> None:
    """A profile that is not there; the domain next to it is not touched."""
    found = refused(*packed(policy_resource("a", cacheProfileRef={"name": "absent"}), policy_resource("b")))

    (refusal,) = found.refusals
    assert (refusal.kind, refusal.name, refusal.path) == ("Policy", "shop/a", "spec.cacheProfileRef")
    assert "there is no CacheProfile shop/absent" in refusal.message


def test_a_name_twice_is_refused() -> None:
    """One of the two would be lost."""
    found = refused(*packed(policy_resource("a"), policy_resource("a", requests=9)))

    assert found.refusals[0].message == "is twice in the response"


def test_warnings_are_kept_with_their_domain() -> None:
    """Also when another one changes."""
    late = policy_resource("late", domain="shop.p0")
    first = taken(*packed(*policies(2).resources.values(), late))
    second = taken(*packed(*policies(2, p1=9).resources.values(), late), before=first)

    assert len(first.all_warnings()) == 1
    assert second.all_warnings() == first.all_warnings()
    assert second.refusals_of(second.all_warnings()) == []
    assert taken(*packed(*policies(2).resources.values()), before=second).all_warnings() == ()


def test_a_set_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small its domains are."""
    monkeypatch.setattr(compiled_module, "MAX_RULES", 3)

    message = "4 rules and branches; at most 3 are served"
    assert refused(*packed(*policies(4).resources.values())).refusals == (Refusal("", "", message=message),)


def test_problems_of_nothing_that_was_sent_are_told_all_the_same() -> None:
    """The serving process may have reasons of its own."""
    from ratelimit_service.policy.problems import Problem

    found = taken(*packed(policy_resource("a")))

    assert found.refusals_of([Problem("disk", "", "is full")]) == [Refusal("", "", message="disk: is full")]


def upstream(name: str, requests: int = 5, unit: str = "minute") -> bytes:
    descriptor = {"key": "user", "rate_limit": {"unit": unit, "requests_per_unit": requests}}
    return encode_any(RATE_LIMIT_CONFIG_TYPE, encode_config(name, {"domain": name, "descriptors": [descriptor]}))


def test_upstreams_resource_is_compiled_as_its_yaml() -> None:
    """One domain each, and only what changed."""
    first = taken(upstream("a"), upstream("b"), type_url=RATE_LIMIT_CONFIG_TYPE)
    second = taken(upstream("a"), upstream("b", 9), type_url=RATE_LIMIT_CONFIG_TYPE, before=first)

    assert [plan.head.name for plan in second.changed_from(first)[0]] == ["b"]


def test_upstreams_resource_is_refused_with_upstreams_words() -> None:
    """Named by its own name."""
    found = refused(upstream("a", unit="unknown"), type_url=RATE_LIMIT_CONFIG_TYPE)

    assert found.refusals[0].kind == "RateLimitConfig"
    assert "invalid rate limit unit" in found.refusals[0].message
