"""What becomes of single policies and profiles."""

from __future__ import annotations

from typing import Any

import msgspec

from ratelimit_operator.api.conditions import Reason
from ratelimit_operator.plan.distribution import Enforcement
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.planning import Plan, plan
from ratelimit_operator.plan.precedence import Contests
from ratelimit_operator.plan.world import Scope, World
from support.plan_worlds import of, policy, profile, rule, world

PLATFORM = {"tidegate.dev/platform": "true"}


def _spec(domain: str = "a.web", *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"domain": domain, "rules": list(rules or [rule("r1")]), **fields}


def _plan(given: World, live: Live | None = None) -> Plan:
    return plan(given, live or Live(), Contests())


def test_a_tenants_domain_begins_with_its_namespace() -> None:
    """Another's domain is refused with the sentence that says what would be right."""
    planned = _plan(world(of(policy("a/x", _spec("b.web")), policy("a/y", _spec("a.web")))))

    refused = planned.policies["a/x"]
    assert (refused.accepted.reason, refused.live) == (Reason.NOT_ALLOWED, None)
    assert refused.accepted.message == (
        "spec.domain: namespace a uses domains that begin with `a.`; "
        "for others namespace a needs the label tidegate.dev/platform=true"
    )
    assert planned.policies["a/y"].accepted.holds


def test_a_platform_namespace_may_use_any_domain() -> None:
    """The label lifts the rule."""
    planned = _plan(world(of(policy("a/x", _spec("b.web"))), namespaces={"a": PLATFORM}))

    assert planned.policies["a/x"].accepted.holds


def test_labels_that_cannot_be_read_allow_nothing() -> None:
    """An operator of single namespaces says that this is why."""
    scope = Scope("tidegate-system", frozenset({"a"}), reads_labels=False)

    planned = _plan(world(of(policy("a/x", _spec("b.web"))), namespaces={"a": PLATFORM}, scope=scope))

    assert "may not read the labels" in planned.policies["a/x"].accepted.message


def test_overrides_are_for_platform_namespaces() -> None:
    """Governance is not a tenant's."""
    spec = {
        "targetRefs": [{"kind": "Gateway", "name": "edge"}],
        "overrides": {"rules": [{**rule("r1"), "match": [{"key": "ip", "type": "Any", "from": {"type": "Path"}}]}]},
    }
    given = of(policy("a/x", spec), policy("b/x", spec))

    planned = _plan(world(given, namespaces={"b": PLATFORM}))

    assert planned.policies["a/x"].accepted.message.startswith("spec.overrides: for overrides namespace a needs")
    assert planned.policies["b/x"].accepted.holds


def test_a_targeted_policy_names_no_profile() -> None:
    """All of them share the reserved domain, which has one."""
    spec = {
        "targetRefs": [{"kind": "Gateway", "name": "edge"}],
        "rules": [{**rule("r1"), "match": [{"key": "ip", "type": "Any", "from": {"type": "Path"}}]}],
        "cacheProfileRef": {"name": "p"},
    }

    planned = _plan(world(of(policy("a/x", spec))))

    assert planned.policies["a/x"].accepted.reason is Reason.NOT_ALLOWED


def test_an_invalid_policy_lists_every_field() -> None:
    """The decoder's words, as the API server could not say them."""
    spec = _spec("a.web", {**rule("r1"), "limits": [{"requests": 5, "calendar": {"unit": "Day", "timeZone": "Mars"}}]})
    spec["rules"].append({**rule("r2"), "replaces": ["nobody"]})

    planned = _plan(world(of(policy("a/x", spec))))

    message = planned.policies["a/x"].accepted.message
    assert planned.policies["a/x"].accepted.reason is Reason.INVALID
    assert "spec.rules[0].limits[0].calendar.timeZone: no time zone `Mars`" in message
    assert "spec.rules[1].match: same entries as rule `r1`" in message


def test_the_last_accepted_form_stays_live() -> None:
    """A spec that breaks a rule replaces nothing, and status can say which generation it is."""
    good = _plan(world(of(policy("a/x", _spec()))))

    bad = _plan(
        world(of(policy("a/x", _spec("a.web", {**rule("r1"), "replaces": ["nobody"]}), generation=2))), good.live
    )

    planned = bad.policies["a/x"]
    assert planned.accepted.reason is Reason.INVALID
    assert planned.live is not None
    assert planned.live.generation == 1
    assert bad.distribution == good.distribution


def test_a_new_object_of_an_old_name_inherits_nothing() -> None:
    """Deleted and made anew in one apply: what the former one was is gone."""
    good = _plan(world(of(policy("a/x", _spec(), created=1))))

    bad = _plan(world(of(policy("a/x", _spec("a.web", {**rule("r1"), "replaces": ["x"]}), created=2))), good.live)

    assert bad.policies["a/x"].live is None


def test_the_older_policy_wins_and_the_loser_is_told() -> None:
    """By chain and by name; without the winner the loser's rule is in force."""
    old = policy("b/old", _spec("a.web", rule("r1", "user")), created=1)
    new = policy("a/new", _spec("a.web", rule("r9", "user"), rule("r2", "tenant")), created=2)
    labels = {"b": PLATFORM}

    both = _plan(world(of(old, new), namespaces=labels))
    alone = _plan(world(of(new), namespaces=labels), both.live)

    assert both.policies["a/new"].standing.overridden_by == ("r9: b/old",)
    assert both.policies["a/new"].standing.in_force == 1
    assert both.policies["b/old"].standing.overridden_by == ()
    assert alone.policies["a/new"].standing.in_force == 2


def test_a_missing_profile_leaves_the_former_form() -> None:
    """What it refers to has to be there before a form goes live."""
    before = _plan(world(of(policy("a/x", _spec()))))
    wanted = _spec("a.web", rule("r1", requests=9), cacheProfileRef={"name": "p"})

    after = _plan(world(of(policy("a/x", wanted, generation=2))), before.live)

    planned = after.policies["a/x"]
    assert planned.accepted.holds
    assert planned.refs.reason is Reason.CACHE_PROFILE_NOT_FOUND
    assert not planned.is_current
    assert after.distribution == before.distribution


def test_a_profile_that_is_removed_while_in_use_stays() -> None:
    """The domain goes on being counted where it was, and status says that the profile is gone."""
    spec = _spec(cacheProfileRef={"name": "p"})
    before = _plan(world(of(policy("a/x", spec)), of(profile("a/p", {}))))

    after = _plan(world(of(policy("a/x", spec))), before.live)

    assert after.policies["a/x"].refs.reason is Reason.CACHE_PROFILE_NOT_FOUND
    assert after.distribution == before.distribution
    assert before.used_by == {"a/p": 1}


def test_a_domain_has_one_profile() -> None:
    """The older policy's; the other is told the name."""
    given = of(
        policy("a/old", _spec("a.web", rule("r1"), cacheProfileRef={"name": "p"}), created=1),
        policy("a/new", _spec("a.web", rule("r2", "tenant"), cacheProfileRef={"name": "q"}), created=2),
    )

    planned = _plan(world(given, of(profile("a/p", {}), profile("a/q", {}))))

    refused = planned.policies["a/new"].accepted
    assert refused.reason is Reason.CONFLICTED
    assert "is counted in CacheProfile a/p" in refused.message


def test_a_form_that_stays_follows_the_domains_profile() -> None:
    """An older policy may choose another profile later: the younger one's rules stay in force, counted there."""
    younger = policy("a/new", _spec("a.web", rule("r2", "tenant"), cacheProfileRef={"name": "q"}), created=2)
    profiles = of(profile("a/p", {}), profile("a/q", {}))
    before = _plan(world(of(policy("a/old", _spec(), created=1), younger), profiles))
    chosen = policy("a/old", _spec(cacheProfileRef={"name": "p"}), created=1, generation=2)

    after = _plan(world(of(chosen, younger), profiles), before.live)

    planned = after.policies["a/new"]
    assert planned.accepted.reason is Reason.CONFLICTED
    assert planned.standing.in_force == 1
    assert planned.live is not None
    assert b"cacheProfileRef" not in planned.live.resource.body
    assert after.used_by == {"a/p": 2}


def test_profiles_are_shared_as_they_say() -> None:
    """Same namespace, all, or by label."""
    user = _spec("b.web", cacheProfileRef={"name": "p", "namespace": "a"})

    def refs(allowed: dict[str, Any], **labels: str) -> tuple[Reason, str]:
        planned = _plan(
            world(of(policy("b/x", user)), of(profile("a/p", {"allowedNamespaces": allowed})), namespaces={"b": labels})
        )
        return planned.policies["b/x"].refs.reason, planned.policies["b/x"].refs.message

    selector = {"from": "Selector", "selector": {"matchLabels": {"tenant": "yes"}}}
    assert refs({"from": "All"})[0] is Reason.RESOLVED_REFS
    assert refs({"from": "Same"})[0] is Reason.REF_NOT_PERMITTED
    assert refs(selector, tenant="yes")[0] is Reason.RESOLVED_REFS
    assert "is for namespaces labelled tenant=yes; namespace b is not" in refs(selector)[1]


def test_a_selector_is_nothing_where_labels_cannot_be_read() -> None:
    """Denied, and said so."""
    selector = {"from": "Selector", "selector": {"matchLabels": {"tenant": "yes"}}}
    given = world(
        of(policy("b/x", _spec("b.web", cacheProfileRef={"name": "p", "namespace": "a"}))),
        of(profile("a/p", {"allowedNamespaces": selector})),
        scope=Scope("a", frozenset({"a", "b"}), reads_labels=False),
    )

    assert "shared by label" in _plan(given).policies["b/x"].refs.message


REDIS = {"type": "Redis", "endpoints": ["redis:6379"]}


def test_a_store_is_for_platform_namespaces_and_the_release() -> None:
    """A tenant's profile may not make the service open connections."""
    given = of(profile("a/p", {"store": REDIS}), profile("b/p", {"store": REDIS}), profile("rel/p", {"store": REDIS}))

    planned = _plan(world(profiles=given, namespaces={"b": PLATFORM}, scope=Scope("rel")))

    assert planned.profiles["a/p"].accepted.reason is Reason.NOT_ALLOWED
    assert planned.profiles["b/p"].accepted.holds
    assert planned.profiles["rel/p"].accepted.holds


def test_the_default_is_for_platform_namespaces_and_the_older_wins() -> None:
    """Two of them: the younger is Conflicted; a tenant's is NotAllowed."""
    given = of(
        profile("a/p", {"default": True}, created=0),
        profile("rel/old", {"default": True}, created=1),
        profile("rel/new", {"default": True}, created=2),
    )

    planned = _plan(world(of(policy("a/x", _spec())), given, scope=Scope("rel")))

    assert planned.profiles["a/p"].accepted.reason is Reason.NOT_ALLOWED
    assert planned.profiles["rel/new"].accepted.reason is Reason.CONFLICTED
    assert planned.used_by == {"rel/old": 1}


def test_a_default_that_loses_goes_on_without_being_it() -> None:
    """An older profile becomes the default: the other's last form stays live, and one default remains."""
    younger = profile("rel/new", {"default": True}, created=2)
    before = _plan(world(profiles=of(profile("rel/old", {}, created=1), younger), scope=Scope("rel")))
    older = profile("rel/old", {"default": True}, created=1, generation=2)

    after = _plan(world(profiles=of(older, younger), scope=Scope("rel")), before.live)

    bodies = [msgspec.json.decode(each.body) for each in after.distribution.resources.values()]
    assert [each["metadata"]["name"] for each in bodies if each.get("spec", {}).get("default")] == ["old"]
    assert after.profiles["rel/new"].live is not None


def test_a_secret_that_is_not_mounted_keeps_a_store_closed() -> None:
    """The chart has to mount it; policies that name the profile are told the same."""
    store = REDIS | {
        "auth": {"secretRef": {"name": "login"}},
        "tls": {"mode": "Verify", "caRef": {"name": "ca"}, "clientCertRef": {"name": "cert"}},
    }
    given = world(
        of(policy("rel/x", _spec("rel.web", cacheProfileRef={"name": "p"}))),
        of(profile("rel/p", {"store": store})),
        scope=Scope("rel", secret_mounts=frozenset({"rel/login", "rel/cert"})),
    )

    planned = _plan(given)

    assert planned.profiles["rel/p"].refs.reason is Reason.SECRET_NOT_MOUNTED
    assert planned.profiles["rel/p"].refs.message == (
        "the service has no secret rel/ca mounted; add it to the chart's secretMounts"
    )
    assert planned.profiles["rel/p"].live is None
    assert planned.policies["rel/x"].refs.reason is Reason.SECRET_NOT_MOUNTED


def test_a_profile_that_is_not_accepted_cannot_be_used() -> None:
    """And the policy's status says why it is not."""
    given = world(
        of(policy("a/x", _spec(cacheProfileRef={"name": "p"}))), of(profile("a/p", {"store": {"type": "Redis"}}))
    )

    planned = _plan(given).policies["a/x"]

    assert planned.refs.reason is Reason.REF_NOT_PERMITTED
    assert "a Redis store needs endpoints" in planned.refs.message


def test_an_invalid_profile_says_why() -> None:
    """By status, because the API server could not."""
    planned = _plan(world(profiles=of(profile("a/p", {"store": {"type": "Memory", "endpoints": ["x:1"]}}))))

    assert planned.profiles["a/p"].accepted.reason is Reason.INVALID


def test_the_kill_switch_is_in_the_distribution() -> None:
    """One resource changes, no policy's version does."""
    given = world(of(policy("a/x", _spec())))
    on, off = _plan(given), _plan(msgspec.structs.replace(given, enforcement=Enforcement.SHADOW))

    changed = [key for key, each in on.distribution.resources.items() if off.distribution.resources[key] != each]
    assert [str(each) for each in changed] == ["Settings tidegate/settings"]


def test_a_domain_that_did_not_change_is_not_decided_again() -> None:
    """One policy among many costs what its own domain costs."""
    contests, live = Contests(), Live()
    given = of(*(policy(f"a/p{number}", _spec(f"a.d{number}")) for number in range(20)))
    first = plan(world(given), live, contests)

    plan(world(given | of(policy("a/p3", _spec("a.d3", rule("r2")), generation=2))), first.live, contests)

    assert contests.decided == 21
