"""Our policies as upstream's resources."""

from __future__ import annotations

from typing import Any

from ratelimit_operator.xds.upstream_forms import UpstreamForms
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE, decode_config
from ratelimit_service.wire.xds.resources import decode_any
from support.distributions import distribution, policy_resource

FIXED = {"requests": 5, "window": "1m", "algorithm": "FixedWindow"}


def rule(name: str, *match: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "match": list(match) or [{"key": name, "type": "Any"}], "limits": [FIXED], **fields}


def test_what_upstream_can_say_is_said() -> None:
    """Shared beginnings of chains become one branch; names are unique over policies, so that `replaces` finds them."""
    rules = [
        rule("per-user", {"key": "user", "type": "Any"}),
        rule("gold", {"key": "user", "type": "Any"}, {"key": "plan", "value": "gold"}, mode="Shadow"),
        rule("partners", {"key": "api", "type": "Prefix", "value": "p-"}, replaces=["per-user"]),
        {"name": "open", "match": [{"key": "path", "value": "/healthz"}], "action": "Allow"},
        {"name": "shut", "match": [{"key": "path", "value": "/admin"}], "action": "Deny"},
        rule("off", mode="Disabled"),
    ]
    forms = UpstreamForms()

    rendered = forms.render(distribution(policy_resource("a", rules=rules)))

    assert list(rendered) == ["shop.a"]
    packed = decode_any(rendered["shop.a"].packed)
    assert packed.type_url == RATE_LIMIT_CONFIG_TYPE
    name, config = decode_config(packed.value)
    assert (name, config["domain"]) == ("shop.a", "shop.a")
    minute = {"unit": "minute", "requests_per_unit": 5}
    assert config["descriptors"] == [
        {
            "key": "user",
            "rate_limit": {**minute, "name": "shop/a/per-user"},
            "descriptors": [
                {
                    "key": "plan",
                    "value": "gold",
                    "rate_limit": {**minute, "name": "shop/a/gold"},
                    "shadow_mode": True,
                }
            ],
        },
        {
            "key": "api",
            "value": "p-*",
            "rate_limit": {**minute, "name": "shop/a/partners", "replaces": [{"name": "shop/a/per-user"}]},
        },
        {"key": "path", "value": "/healthz", "rate_limit": {"unlimited": True, "name": "shop/a/open"}},
        {"key": "path", "value": "/admin", "rate_limit": {"unit": "second", "name": "shop/a/shut"}},
    ]
    assert forms.left_out == ()


def test_what_upstream_cannot_say_is_left_out_and_named() -> None:
    """It would mean something else there."""
    rules = [
        rule("sliding", limits=[{"requests": 5, "window": "1m"}]),
        rule("odd", limits=[{**FIXED, "window": "90s"}]),
        rule("monthly", limits=[{"requests": 5, "calendar": {"unit": "Month"}}]),
        rule("several", limits=[FIXED, {**FIXED, "window": "1h"}]),
        rule("debts", countDenied=True),
        rule("rolling", rollout={"percent": 5}),
        rule("shared", {"key": "k", "type": "Prefix", "value": "p", "bucket": "Shared"}),
        rule("starred", {"key": "k", "value": "a*"}),
        rule("empty", {"key": "k", "value": ""}),
    ]
    forms = UpstreamForms()

    rendered = forms.render(distribution(policy_resource("a", rules=rules)))

    assert decode_config(decode_any(rendered["shop.a"].packed).value)[1]["descriptors"] == []
    assert forms.left_out == tuple(sorted(f"shop/a/{each['name']}" for each in rules))


def test_a_form_stays_the_same_while_its_domain_does() -> None:
    """So that no client is sent it again."""
    forms = UpstreamForms()
    first = forms.render(distribution(policy_resource("a"), policy_resource("b")))
    second = forms.render(distribution(policy_resource("a"), policy_resource("b", requests=6)))

    assert first["shop.a"] == second["shop.a"]
    assert first["shop.b"].version != second["shop.b"].version
