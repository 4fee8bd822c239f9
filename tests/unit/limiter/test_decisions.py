"""What policies make of requests: several limits, roles, rollouts, refunds, overrides, profiles."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_service.limiter.engine import OWN_STORE, Limiter
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.identity import counter_key, stable_percent
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.wire.rls.client import decode_response, encode_request
from support.clocks import ManualClock
from support.limiters import LimiterHarness, descriptor, request, texts_of
from support.snapshots import policy, snapshot_of

DENY = "- {name: banned, match: [{key: banned, type: Any}], action: Deny}\n"
ALLOW = "- {name: staff, match: [{key: staff, type: Any}], action: Allow}\n"


def rule(name: str, requests: int, more: str = "") -> str:
    """A rule of one fixed window of a minute on the key of its name."""
    limits = f"limits: [{{requests: {requests}, window: 1m, algorithm: FixedWindow}}]"
    return f"- {{name: {name}, match: [{{key: {name}, type: Any}}], {limits}{', ' + more if more else ''}}}\n"


def limited(*rules: str, settings: LimiterSettings = LimiterSettings(), **options: Any) -> LimiterHarness:  # noqa: B008
    return LimiterHarness(snapshot_of(policy("".join(rules))), settings, **options)


@pytest.fixture(params=[False, True], ids=["at once", "later"])
def deferred(request: pytest.FixtureRequest) -> bool:
    return request.param


def test_limits_of_one_rule_are_counted_all_or_none(deferred: bool) -> None:
    """The narrow one denies; the wide one keeps its budget, and the longest wait is shown."""
    two = """
    - name: user
      match: [{key: user, type: Any}]
      limits: [{requests: 2, window: 1m, algorithm: FixedWindow}, {requests: 3, window: 1h, algorithm: FixedWindow}]
    """
    harness = limited(two, deferred=deferred)
    answers = [texts_of(harness.ask(request("user=x"))) for _ in range(3)]
    harness.advance(40_000_000)
    answers += [texts_of(harness.ask(request("user=x"))) for _ in range(2)]

    assert answers == [
        ["OK 2/MINUTE/user left 1 reset 40"],
        ["OK 2/MINUTE/user left 0 reset 40"],
        ["OVER_LIMIT 2/MINUTE/user left 0 reset 40"],
        ["OK 3/HOUR/user left 0 reset 2760"],
        ["OVER_LIMIT 3/HOUR/user left 0 reset 2760"],
    ]


def test_of_limits_that_are_over_the_longest_wait_is_shown() -> None:
    """Hits that never fit one of them have no reset at all."""
    two = """
    - name: user
      match: [{key: user, type: Any}]
      limits: [{requests: 1, window: 1m, algorithm: FixedWindow}, {requests: 3, window: 1h, algorithm: FixedWindow}]
    """
    harness = limited(two)

    assert texts_of(harness.ask(request("user=x", hits=4))) == ["OVER_LIMIT 1/MINUTE/user left 0"]


def test_a_window_that_is_no_unit_is_named() -> None:
    """`UNKNOWN` with the rule's name; a calendar's unit is one."""
    odd = """
    - {name: odd, match: [{key: odd, type: Any}], limits: [{requests: 9, window: 10s, algorithm: FixedWindow}]}
    - {name: month, match: [{key: month, type: Any}], limits: [{requests: 9, calendar: {unit: Month}}]}
    """
    harness = limited(odd)

    assert texts_of(harness.ask(request("odd=x", "month=x"))) == [
        "OK 9/UNKNOWN/odd left 8 reset 10",
        "OK 9/MONTH/month left 8 reset 1388800",
    ]


def test_a_denied_request_takes_nothing_from_companions(deferred: bool) -> None:
    """They are OK and not decremented."""
    harness = limited(rule("small", 1), rule("large", 9), deferred=deferred)
    harness.ask(request("small=x", "large=x"))

    assert texts_of(harness.ask(request("small=x", "large=x"))) == [
        "OVER_LIMIT 1/MINUTE/small left 0 reset 40",
        "OK 9/MINUTE/large left 8 reset 40",
    ]


def test_deny_takes_nothing_from_companions_but_penalties(deferred: bool) -> None:
    """A companion shows its budget as it stands; what counts denied requests counts this one."""
    harness = limited(DENY, rule("large", 9), rule("budget", 9, "countDenied: true"), deferred=deferred)
    verdicts = [harness.ask(request("banned=x", "large=x", "budget=x", hits=2)) for _ in range(2)]

    assert [verdict.over for verdict in verdicts] == [True, True]
    assert texts_of(verdicts[1]) == [
        "OVER_LIMIT",
        "OK 9/MINUTE/large left 9 reset 0",
        "OK 9/MINUTE/budget left 5 reset 40",
    ]
    assert harness.counters("banned") == {"deny": 2, "hits": 4}


def test_a_deny_rule_in_shadow_passes() -> None:
    """Counted as what it would have done; in global shadow mode too, and there its status tells."""
    quiet = limited(DENY.replace("action", "mode: Shadow, action"), rule("large", 9))
    verdict = quiet.ask(request("banned=x", "large=x"))
    everywhere = limited(DENY, settings=LimiterSettings(shadow_mode=True))
    loud = everywhere.ask(request("banned=x"))

    assert texts_of(verdict) == ["OK", "OK 9/MINUTE/large left 8 reset 40"]
    assert quiet.counters("banned") == {"shadow_over": 1, "hits": 1}
    assert (loud.over, texts_of(loud)) == (False, ["OVER_LIMIT"])
    assert everywhere.counters("banned") == {"shadow_over": 1, "hits": 1}


def test_allow_exempts_its_own_descriptor_only() -> None:
    """Another descriptor of the request is limited all the same."""
    harness = limited(ALLOW, rule("user", 1))
    harness.ask(request("user=x"))
    verdict = harness.ask(request("staff=me", "user=x"))

    assert verdict.over
    assert texts_of(verdict)[0] == "OK left 4294967295"
    assert harness.counters("staff") == {"allow": 1, "hits": 1}


def test_replaces_lifts_a_rule_for_the_request(deferred: bool) -> None:
    """Only where the replacing rule is met too; a Deny is lifted as well."""
    harness = limited(rule("user", 1), DENY, rule("gold", 5, "replaces: [user, banned]"), deferred=deferred)
    harness.ask(request("user=x"))
    lifted = harness.ask(request("user=x", "gold=x", "banned=x"))

    assert texts_of(lifted) == ["OK", "OK 5/MINUTE/gold left 4 reset 40", "OK"]
    assert harness.ask(request("user=x")).over
    assert harness.table.unmatched == 0


def test_a_debt_grows_past_the_limit(deferred: bool) -> None:
    """A check with 0 hits, then a charge of what it cost: the budget runs out (DECISIONS 3)."""
    harness = limited(rule("tokens", 10, "countDenied: true"), deferred=deferred)
    harness.ask(request("tokens=x", hits=25))
    check = harness.ask(request(descriptor("tokens=x", hits=0)))

    assert texts_of(check) == ["OVER_LIMIT 10/MINUTE/tokens left 0 reset 40"]
    assert harness.counters("tokens") == {"over": 2, "hits": 25, "near_limit_hits": 2}


def test_refunds_are_applied_where_the_rule_takes_them(deferred: bool) -> None:
    """The status shows what is left then; elsewhere they are counted and ignored (DECISIONS 4)."""
    harness = limited(rule("user", 5, "refunds: true"), rule("other", 5), deferred=deferred)
    back = [descriptor("user=x", hits=2, negative=True), descriptor("other=x", hits=2, negative=True)]
    harness.ask(request("user=x", "other=x", hits=4))

    assert texts_of(harness.ask(request(*back))) == [
        "OK 5/MINUTE/user left 3 reset 40",
        "OK 5/MINUTE/other left 1 reset 40",
    ]
    assert harness.table.refunds_ignored == 1


def test_a_refund_makes_room_for_the_same_request(deferred: bool) -> None:
    """Hits are given back before others are charged."""
    harness = limited(rule("user", 5, "refunds: true"), deferred=deferred)
    harness.ask(request("user=x", hits=5))
    verdict = harness.ask(request(descriptor("user=x", hits=2, negative=True), descriptor("user=x", hits=2)))

    assert not verdict.over
    assert texts_of(verdict)[1] == "OK 5/MINUTE/user left 0 reset 40"


def test_a_refund_of_a_full_budget_gives_nothing() -> None:
    """Never below 0 hits used."""
    harness = limited(rule("user", 5, "refunds: true"))

    assert texts_of(harness.ask(request(descriptor("user=x", negative=True)))) == ["OK 5/MINUTE/user left 5 reset 0"]


def test_shadow_rules_count_and_pass(deferred: bool) -> None:
    """What does not fit is not counted, and the status says that nothing is left."""
    harness = limited(rule("user", 2, "mode: Shadow"), deferred=deferred)
    verdicts = [harness.ask(request("user=x", hits=2)) for _ in range(2)]

    assert [verdict.over for verdict in verdicts] == [False, False]
    assert texts_of(verdicts[1]) == ["OK 2/MINUTE/user left 0 reset 40"]
    assert harness.counters("user") == {"ok": 1, "shadow_over": 1, "hits": 4, "near_limit_hits": 1}


def test_values_of_a_shared_prefix_count_together() -> None:
    """`bucket: Shared`."""
    shared = """
    - name: partner
      match: [{key: api_key, type: Prefix, value: partner-, bucket: Shared}]
      limits: [{requests: 9, window: 1m, algorithm: FixedWindow}]
    """
    harness = limited(shared)
    harness.ask(request("api_key=partner-a"))

    assert texts_of(harness.ask(request("api_key=partner-b"))) == ["OK 9/MINUTE/partner left 7 reset 40"]


# Rollouts.


def sides(percent: int) -> tuple[str, str]:
    """Values on the new side and on the old side of a rollout."""
    by_side = {stable_percent(counter_key([b"%d" % n])) < percent: str(n) for n in range(1000)}
    return by_side[True], by_side[False]


def test_a_rollout_judges_each_key_by_its_side(deferred: bool) -> None:
    """Both verdicts are counted, those of the new limit under their own label."""
    new, old = sides(50)
    rollout = "rollout: {percent: 50, limits: [{requests: 1, window: 1h, algorithm: FixedWindow}]}"
    harness = limited(rule("user", 2, rollout), deferred=deferred)
    answers = {value: [harness.ask(request(f"user={value}")).over for _ in range(3)] for value in (new, old)}

    assert answers == {new: [False, True, True], old: [False, False, True]}
    assert _decided(harness, "user") == {"ok": 5, "over": 1, "hits": 6}
    assert _decided(harness, "user/rollout") == {"ok": 2, "over": 2, "shadow_over": 2, "hits": 6}


def _decided(harness: LimiterHarness, rule: str) -> dict[str, int]:
    """A rule's counters but for near-limit hits."""
    return {name: count for name, count in harness.counters(rule).items() if name != "near_limit_hits"}


def test_a_rollout_that_shares_the_count_counts_hits_once(deferred: bool) -> None:
    """Same window, another number: the other side only looks."""
    new, old = sides(50)
    rollout = "rollout: {percent: 50, limits: [{requests: 4, window: 1m, algorithm: FixedWindow}]}"
    harness = limited(rule("user", 2, rollout), deferred=deferred)

    assert [harness.ask(request(f"user={new}")).over for _ in range(5)] == [False] * 4 + [True]
    assert [harness.ask(request(f"user={old}")).over for _ in range(3)] == [False, False, True]
    assert harness.counters("user")["shadow_over"] == 3


def test_a_rule_on_its_way_in_is_shadow_for_the_rest() -> None:
    """Without `rollout.limits`."""
    new, old = sides(50)
    harness = limited(rule("user", 1, "rollout: {percent: 50}"))

    assert [harness.ask(request(f"user={new}")).over for _ in range(2)] == [False, True]
    assert [harness.ask(request(f"user={old}")).over for _ in range(2)] == [False, False]
    assert harness.counters("user") == {"ok": 2, "over": 1, "shadow_over": 1, "hits": 4, "near_limit_hits": 2}


def test_a_watching_limit_that_is_over_does_not_stop_a_shadow_rule_from_counting(deferred: bool) -> None:
    """The two sides are judged apart, in shadow mode too."""
    new, _ = sides(50)
    rollout = "mode: Shadow, rollout: {percent: 50, limits: [{requests: 9, window: 1h, algorithm: FixedWindow}]}"
    harness = limited(rule("user", 1, rollout), deferred=deferred)
    answers = [texts_of(harness.ask(request(f"user={new}"))) for _ in range(3)]

    assert answers[2] == ["OK 9/HOUR/user left 6 reset 2800"]


def test_a_refund_reaches_both_sides_of_a_rollout() -> None:
    """Else the watching side would fill up with hits that were given back."""
    new, _ = sides(50)
    rollout = "refunds: true, rollout: {percent: 50, limits: [{requests: 9, window: 1h, algorithm: FixedWindow}]}"
    harness = limited(rule("user", 5, rollout))
    harness.ask(request(f"user={new}", hits=3))
    shown = texts_of(harness.ask(request(descriptor(f"user={new}", hits=3, negative=True))))

    assert shown == ["OK 9/HOUR/user left 9 reset 0"]
    assert [usage.used for usage in harness.usage()] == [0] * len(harness.usage())


# Limits that descriptors carry.


def test_an_override_counts_by_its_unit_not_its_number(deferred: bool) -> None:
    """A new number goes on with the count, another unit begins its own; the rule's count is apart."""
    harness = limited(rule("user", 9), deferred=deferred)
    asked = [("user=x", (5, 2)), ("user=x", (3, 2)), ("user=x", (3, 3))]
    answers = [texts_of(harness.ask(request(descriptor(entry, limit=limit))))[0] for entry, limit in asked]

    assert answers == ["OK 5/MINUTE left 4 reset 40", "OK 3/MINUTE left 1 reset 40", "OK 3/HOUR left 2 reset 2800"]
    assert texts_of(harness.ask(request("user=x"))) == ["OK 9/MINUTE/user left 8 reset 40"]
    assert harness.counters("_override")["ok"] == 3


def test_overrides_of_other_keys_never_meet() -> None:
    """(a=b_c) and (a_b=c), and one key twice, are three counters."""
    harness = limited(rule("user", 9))
    asked = [descriptor("a=x", limit=(5, 2)), descriptor("b=x", limit=(5, 2)), descriptor("a=x", "a=", limit=(5, 2))]

    assert [text.split()[3] for text in texts_of(harness.ask(request(*asked)))] == ["4", "4", "4"]


def test_an_override_takes_no_refund() -> None:
    """No rule says that it may; in compat mode it does, as upstream."""
    back = request(descriptor("user=x", limit=(5, 2), hits=2, negative=True))
    took = request(descriptor("user=x", limit=(5, 2), hits=4))
    ours, theirs = limited(rule("user", 9)), limited(rule("user", 9), settings=LimiterSettings(compat=True))
    for harness in (ours, theirs):
        harness.ask(took)

    assert texts_of(ours.ask(back)) == ["OK 5/MINUTE left 1 reset 40"]
    assert texts_of(theirs.ask(back)) == ["OK 5/MINUTE left 3 reset 40"]


@pytest.mark.parametrize(("mode", "over"), [("Open", False), ("Share", True), ("Closed", True)])
@pytest.mark.parametrize("compat", [False, True])
def test_overrides_without_room_follow_the_domains_failure_mode(mode: str, over: bool, compat: bool) -> None:
    """A peer that makes up keys fills the store and no more; then the domain's oldest policy decides."""
    text = policy(rule("user", 9), spec=f"failure: {{onStoreError: {mode}}}")
    harness = LimiterHarness(snapshot_of(text), LimiterSettings(compat=compat), max_keys=8)
    for number in range(200):
        verdict = harness.ask(request(descriptor(f"made-up-{number}=x", limit=(5, 2))))

    assert verdict.over is over
    assert harness.memory.stats().keys <= 8


# Profiles.


PROFILE = "apiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\n"


def test_a_domain_is_counted_in_the_store_of_its_profile() -> None:
    """A profile without a store is counted in the service's own."""
    texts = [
        policy(rule("user", 2), domain=domain, name=domain, spec=f"cacheProfileRef: {{name: {profile}}}")
        for domain, profile in (("own", "fast"), ("homeless", "slow"))
    ]
    texts += [f"{PROFILE}metadata: {{name: {name}, namespace: shop}}\nspec: {{}}\n" for name in ("fast", "slow")]
    stores = {OWN_STORE: MemoryStore(clock=ManualClock()), "shop/fast": MemoryStore(clock=ManualClock())}
    limiter = Limiter(stores, LimiterSettings(), CounterTable())
    limiter.apply(snapshot_of(*texts))
    now = ManualClock().read()
    for domain in ("own", "own", "homeless"):
        body = encode_request(request("user=x", domain=domain))
        answer = limiter.decide(body, now, 0, lambda _: None)
        assert isinstance(answer, bytes)
        assert not decode_response(answer).over

    assert {name: store.stats().keys for name, store in stores.items()} == {OWN_STORE: 1, "shop/fast": 1}
    found: list[object] = []
    stores[OWN_STORE].usage("homeless", 0, found.extend)
    assert len(found) == 1


def test_a_name_too_long_for_the_short_way_is_answered_whole() -> None:
    """Names of envoyproxy/ratelimit's YAML have no bound."""
    name = "n" * 5_000
    limit = f"{{name: {name}, unit: minute, requests_per_unit: 9}}"
    config = f"domain: shop\ndescriptors: [{{key: a, rate_limit: {limit}}}]"
    harness = LimiterHarness(snapshot_of(config))

    assert texts_of(harness.ask(request("a=x"))) == [f"OK 9/MINUTE/{name} left 8 reset 40"]
