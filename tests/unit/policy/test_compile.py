"""Both formats become one tree; conflicts are decided and told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, FailureMode, Limit
from ratelimit_service.policy.compile import compile as compile_set
from ratelimit_service.policy.compile import refuses
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.match import match, trace
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import dismantle_steps
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.snapshot import Action, HeaderStyle, LabelMode, Rule, Snapshot

_ANY_USER = "[{key: user, type: Any}]"
_FIVE = "[{requests: 5, window: 10s}]"


def _policy(rules: str, name: str = "checkout", spec: str = "domain: shop.checkout", created: str = "") -> str:
    metadata = f"name: {name}, namespace: shop" + (f', creationTimestamp: "{created}"' if created else "")
    head = f"apiVersion: tidegate.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{{metadata}}}\nspec:\n  {spec}\n"
    return head + "  rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules.splitlines())


def _rule(name: str, match: str = _ANY_USER, rest: str = f"limits: {_FIVE}") -> str:
    return f"name: {name}, match: {match}, {rest}"


def _compile(*texts: str, merge: bool = False) -> tuple[Snapshot, list[Problem]]:
    """Compile files `0.yaml`, `1.yaml`… that decode without an error."""
    objects = []
    for number, text in enumerate(texts):
        found, problems = decode([SourceFile(f"{number}.yaml", text.encode())], merge_domains=True)
        assert not refuses(problems), problems
        objects += found
    return compile_set(objects, CompileOptions(merge_domain_config=merge))


def _good(*texts: str, merge: bool = False) -> Snapshot:
    snapshot, problems = _compile(*texts, merge=merge)
    assert problems == []
    return snapshot


def _told(*texts: str, merge: bool = False) -> list[tuple[Severity, str]]:
    return [(problem.severity, str(problem)) for problem in _compile(*texts, merge=merge)[1]]


def _met(snapshot: Snapshot, domain: str, *entries: str) -> Rule | None:
    pairs = [entry.encode().partition(b"=") for entry in entries]
    return match(snapshot.domains[domain.encode()], [(key, value) for key, _, value in pairs])


def test_a_rule_has_its_limits_with_defaults() -> None:
    """SlidingWindow for a window, FixedWindow for a calendar, burst equal to requests unless said."""
    limits = (
        "limits: [{requests: 5, window: 10s}, {requests: 6, window: 1m, algorithm: TokenBucket, burst: 9},"
        " {requests: 8, window: 1s, algorithm: TokenBucket},"
        " {requests: 7, calendar: {unit: Month, timeZone: Europe/Zurich}}]"
    )
    rule = _met(_good(_policy(_rule("all", rest=limits))), "shop.checkout", "user=a")

    assert rule is not None
    assert [item.limit for item in rule.limits] == [
        Limit(Algorithm.SLIDING_WINDOW, 5, 10_000_000, 5),
        Limit(Algorithm.TOKEN_BUCKET, 6, 60_000_000, 9),
        Limit(Algorithm.TOKEN_BUCKET, 8, 1_000_000, 8),
        Limit(Algorithm.FIXED_WINDOW, 7, 0, 7, Calendar(CalendarUnit.MONTH, "Europe/Zurich")),
    ]


def test_a_rule_has_everything_that_its_policy_says() -> None:
    """Name, mode, failure, headers, labels, shared buckets, replaces and rollout."""
    spec = (
        "domain: shop.checkout\n  mode: Shadow\n  failure: {onStoreError: Closed}\n  responseHeaders: LegacyFields\n"
        "  observability: {metrics: KeyValue, maxSeries: 7}"
    )
    body = _rule(
        "partners",
        "[{key: api_key, type: Prefix, value: partner-, bucket: Shared}, {key: m, value: GET}]",
        f"limits: {_FIVE}, countDenied: true, refunds: true, replaces: [other],"
        " rollout: {percent: 20, limits: [{requests: 9, window: 10s}]}",
    )
    other = _rule("other", rest="action: Deny, mode: Enforce")
    snapshot = _good(_policy(f"{body}\n{other}", spec=spec))
    rule = _met(snapshot, "shop.checkout", "api_key=partner-7", "m=GET")
    denied = _met(snapshot, "shop.checkout", "user=a")

    assert rule is not None
    assert denied is not None
    assert (rule.name, rule.limit_name, rule.policy) == ("partners", "partners", "shop/checkout")
    assert (rule.shadow, rule.count_denied, rule.refunds, rule.quota) == (True, True, True, False)
    assert (rule.failure, rule.headers) == (FailureMode.CLOSED, HeaderStyle.LEGACY_FIELDS)
    assert (rule.labels, rule.max_series, rule.value_labels) == (LabelMode.KEY_VALUE, 7, (True, True))
    assert rule.shared == (b"partner-*", None)
    assert (rule.replaces, rule.replaced_by) == (frozenset({"shop/checkout/other"}), "shop/checkout/partners")
    assert rule.rollout is not None
    assert (rule.rollout.percent, rule.rollout.limits[0].limit.requests) == (20, 9)
    assert rule.rollout.limits[0].identity == rule.limits[0].identity
    assert snapshot.limits[""][rule.limits[0].identity].limit.requests == 5
    assert (denied.action, denied.shadow) == (Action.DENY, False)
    assert rule.origin.startswith("0.yaml:")


def test_a_disabled_rule_is_not_in_the_tree_and_wins_nothing() -> None:
    """It is absent: a younger policy's rule of the same chain is in force, without a warning."""
    disabled = _policy(_rule("old", rest=f"limits: {_FIVE}, mode: Disabled"))
    snapshot = _good(disabled, _policy(_rule("new"), name="second"))

    rule = _met(snapshot, "shop.checkout", "user=a")

    assert rule is not None
    assert rule.name == "new"


def test_identities_stay_when_numbers_mode_and_order_change() -> None:
    """Requests, burst, mode and the order of rules and limits are not in a counter's identity."""
    other = _rule("b", "[{key: x, type: Any}]")
    one = _rule(
        "a", rest="limits: [{requests: 5, window: 1s, algorithm: TokenBucket, burst: 6}, {requests: 5, window: 9s}]"
    )
    two = _rule(
        "a", rest="mode: Shadow, limits: [{requests: 6, window: 9s}, {requests: 7, window: 1s, algorithm: TokenBucket}]"
    )
    before, after = _good(_policy(f"{one}\n{other}")), _good(_policy(f"{other}\n{two}"))

    assert set(before.limits[""]) == set(after.limits[""])
    assert before.version != after.version


def test_the_older_policy_wins_a_name_and_a_chain_with_a_warning() -> None:
    """In files the order of paths is age; the warning names winner and loser."""
    first = _policy(_rule("a"))
    second = _policy(f"{_rule('a', '[{key: other, type: Any}]')}\n{_rule('b')}", name="second")
    snapshot, problems = _compile(first, second)

    rule = _met(snapshot, "shop.checkout", "user=a")

    assert rule is not None
    assert rule.policy == "shop/checkout"
    assert [problem.severity for problem in problems] == [Severity.WARNING] * 2
    assert "rule `a` of shop/second has the same name as rule `a` of shop/checkout (0.yaml:" in problems[0].message
    assert "rule `b` of shop/second has the same chain (user) as rule `a` of shop/checkout" in problems[1].message
    assert problems[0].path == "spec.rules[0]"


def test_creation_time_decides_where_it_is_known() -> None:
    """The API server's time beats the order of files; an unreadable one counts as unknown."""
    young = _policy(_rule("a"), created="2026-02-01T00:00:00Z")
    old = _policy(_rule("b"), name="old", created="2026-01-01T00:00:00")
    strange = _policy(_rule("c"), name="strange", created="yesterday")
    rule = _met(_compile(strange, young, old)[0], "shop.checkout", "user=a")

    assert rule is not None
    assert rule.policy == "shop/old"


def test_the_same_policy_in_two_files_is_an_error() -> None:
    """Both places are named."""
    ((severity, text),) = _told(_policy(_rule("a")), _policy(_rule("a")))

    assert severity is Severity.ERROR
    assert (
        text
        == "1.yaml:3: metadata.name: RateLimitPolicy shop/checkout is also written at 0.yaml:1; rename or remove one"
    )


def test_one_domain_has_one_profile() -> None:
    """A second, differing profile is an error; a policy that names none follows."""
    named = "domain: shop.checkout\n  cacheProfileRef: {{name: {}}}"
    first = _policy(_rule("a"), spec=named.format("x"))
    second = _policy(_rule("b", "[{key: b, type: Any}]"), name="second", spec=named.format("y"))
    third = _policy(_rule("c", "[{key: c, type: Any}]"), name="third")
    snapshot, problems = _compile(first, second, third, _profile("x"), _profile("y"))

    assert snapshot.domains[b"shop.checkout"].profile == "shop/x"
    assert list(snapshot.limits) == ["shop/x"]
    assert [(problem.object, problem.path, problem.severity) for problem in problems] == [
        ("1.yaml", "spec.cacheProfileRef", Severity.ERROR)
    ]


def _profile(name: str, spec: str = "{}") -> str:
    return (
        "apiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\n"
        f"metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )


def test_a_profile_brings_its_store_along() -> None:
    """What it says of the store and of leases is in the snapshot, and in its version."""
    policy = _policy(_rule("a"), spec="domain: shop.checkout\n  cacheProfileRef: {name: x}")
    redis = "{store: {type: Redis, endpoints: ['redis:6379']}, leases: {slots: 3}}"
    snapshot, other = _good(policy, _profile("x", redis)), _good(policy, _profile("x"))

    backend = snapshot.backends["shop/x"]
    assert (backend.namespace, backend.store.endpoints, backend.leases.slots) == ("shop", ("redis:6379",), 3)
    assert snapshot.version != other.version


def test_a_profile_that_is_not_there_is_an_error() -> None:
    """Counting elsewhere than the author said would be worse than not starting."""
    ((severity, text),) = _told(_policy(_rule("a"), spec="domain: shop.checkout\n  cacheProfileRef: {name: x}"))

    assert severity is Severity.ERROR
    assert text.endswith(
        "spec.cacheProfileRef: there is no CacheProfile shop/x among the files; write it, or another name"
    )


def test_the_default_profile_counts_for_policies_that_name_none() -> None:
    """Two defaults are an error that names both."""
    policy = _policy(_rule("a"))
    snapshot = _good(policy, _profile("x", "{default: true}"), _profile("y"))
    ((severity, text),) = _told(policy, _profile("x", "{default: true}"), _profile("y", "{default: true}"))

    assert snapshot.domains[b"shop.checkout"].profile == "shop/x"
    assert severity is Severity.ERROR
    assert "CacheProfile shop/x is the default too; only one may be" in text


_TARGETED = "targetRefs: [{kind: Gateway, name: edge}]"
_FROM = "[{key: client, type: Any, from: {type: RemoteAddress}}]"


def test_targeted_policies_share_the_reserved_domain() -> None:
    """Their descriptors begin with the policy's name, so that two of them never meet."""
    snapshot = _good(_policy(_rule("flood", _FROM), spec=_TARGETED), _policy(_rule("flood", _FROM), "two", _TARGETED))
    rule = _met(snapshot, "tidegate.dev", "tidegate_policy=shop/two", "masked_remote_address=1.2.3.4/32")

    assert rule is not None
    assert (rule.name, rule.limit_name) == ("shop/two/flood", "shop/two/flood")
    assert rule.replaced_by == "shop/two/flood"
    assert rule.shared == (None, None)


def test_a_target_in_a_file_is_told_where_its_rules_answer() -> None:
    """They are in force, although nothing makes Envoy ask for them: the warning must not say that they are not."""
    text = _policy(_rule("flood", _FROM), "two", _TARGETED)
    _, (warning,) = decode([SourceFile("0.yaml", text.encode())])

    assert warning.message.startswith(
        "the rules are in force in domain tidegate.dev, under tidegate_policy=<namespace>/<name>"
    )
    assert "`tidegate render`" in warning.message


def test_defaults_and_overrides_are_rules_too() -> None:
    """Without a hierarchy of targets they are in force as they are."""
    layered = _policy(_rule("flood", _FROM), spec=_TARGETED).replace(
        "  rules:\n  - ", "  defaults:\n    rules:\n    - "
    )
    snapshots = [_good(layered.replace("defaults", field)) for field in ("defaults", "overrides")]

    assert [len(snapshot.domains[b"tidegate.dev"].rules) for snapshot in snapshots] == [1, 1]


def test_a_profile_on_a_targeted_policy_is_an_error() -> None:
    """The reserved domain has the default profile only."""
    told = _told(_policy(_rule("flood", _FROM), spec=f"{_TARGETED}\n  cacheProfileRef: {{name: x}}"))

    assert [severity for severity, _ in told] == [Severity.ERROR]
    assert "targeted policies use the default profile" in told[0][1]


def test_a_domain_of_both_formats_is_an_error() -> None:
    """Both places are named; so is the reserved domain in upstream's YAML."""
    told = _told(_policy(_rule("a")), "domain: shop.checkout\n", "domain: tidegate.dev\n")

    assert [severity for severity, _ in told] == [Severity.ERROR] * 2
    assert "also used by RateLimitPolicy shop/checkout (0.yaml:1)" in told[0][1]
    assert "is reserved" in told[1][1]


_UPSTREAM = """\
domain: d
descriptors:
- key: plan
  value: gold
  rate_limit: {unit: month, requests_per_unit: 0, name: gold, replaces: [{name: base}]}
  shadow_mode: true
  descriptors:
  - key: path
    value: /a/*
    share_threshold: true
    value_to_metric: true
    rate_limit: {unit: year, requests_per_unit: 3}
  - {key: path, detailed_metric: true, quota_mode: true, metadata: {team: a}, rate_limit: {unlimited: true}}
- {key: free}
"""


def test_upstream_yaml_becomes_fixed_windows() -> None:
    """A month is 30 days, a year 365; zero requests stay zero; names are paths of composite keys."""
    snapshot = _good(_UPSTREAM)
    gold, files, rest = (
        _met(snapshot, "d", "plan=gold"),
        _met(snapshot, "d", "plan=gold", "path=/a/b"),
        _met(snapshot, "d", "plan=gold", "path=/b"),
    )

    assert gold is not None
    assert files is not None
    assert rest is not None
    assert gold.limits[0].limit == Limit(Algorithm.FIXED_WINDOW, 0, 2_592_000_000_000, 0)
    assert (gold.name, gold.limit_name, gold.replaced_by, gold.replaces) == ("plan_gold", "gold", "gold", {"base"})
    assert gold.shadow
    assert files.limits[0].limit.window_us == 31_536_000_000_000
    assert (files.name, files.shared, files.value_labels) == ("plan_gold.path_/a/*", (None, b"/a/*"), (False, True))
    assert (rest.action, rest.limits, rest.labels, rest.quota) == (Action.ALLOW, (), LabelMode.KEY_VALUE, True)
    assert rest.metadata == {"team": "a"}
    assert _met(snapshot, "d", "free=1") is None
    assert gold.origin == "0.yaml:3"


def test_upstream_names_that_look_alike_have_counters_of_their_own() -> None:
    """Key `a.b` and key `a` above `b` have one name in metrics, and two identities."""
    rate = "rate_limit: {unit: second, requests_per_unit: 1}"
    snapshot = _good(
        f"domain: d\ndescriptors:\n- {{key: a.b, {rate}}}\n- {{key: a, descriptors: [{{key: b, {rate}}}]}}\n"
    )

    assert [rule.name for rule in snapshot.domains[b"d"].rules] == ["a.b", "a.b"]
    assert len(snapshot.limits[""]) == 2


def test_a_domain_in_two_documents_needs_the_merge_option() -> None:
    """Without it: an error that names both places. With it: the union, and a key written twice is an error."""
    one = "domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: second, requests_per_unit: 1}}\n"
    two = one.replace("key: a", "key: b")
    mend = "use one document or --merge-domain-config"

    assert _told(one, two) == [
        (
            Severity.ERROR,
            f"1.yaml:1: domain: domain `d` is also written at 0.yaml:1; {mend}",
        )
    ]
    assert len(_good(one, two, merge=True).domains[b"d"].rules) == 2
    assert _told(one, one, merge=True) == [
        (Severity.ERROR, "1.yaml:3: descriptors[0]: `a` is also written at 0.yaml:3; keep one")
    ]


def test_the_version_is_the_content() -> None:
    """Files' names, comments and order of domains do not count; a number does."""
    one, two = _policy(_rule("a")), _policy(_rule("b"), name="second", spec="domain: shop.other")
    version = _good(one, two).version

    assert len(version) == 16
    assert _good("# comment\n" + two, one).version == version
    assert _good(one.replace("requests: 5", "requests: 6"), two).version != version
    assert _good(one).version != version


_VERSION_SCRIPT = """
from ratelimit_service.policy.plan import DomainHead, DomainPlan, version_of
from ratelimit_service.policy.snapshot import Action, Rule
from ratelimit_service.policy.tree import Leaf, Step, StepKind
rule = Rule("d", "r", Action.ALLOW, replaces=frozenset(map(str, range(50))), origin="a")
print(version_of([DomainPlan(DomainHead("d"), (Leaf((Step(b"a", StepKind.BARE),), rule),))]))
"""


def test_the_version_is_the_same_in_every_process() -> None:
    """It depends on no hash seed, though a rule holds a set."""
    versions = {
        subprocess.run(
            [sys.executable, "-c", _VERSION_SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(versions) == 1


def test_a_set_of_too_many_rules_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on all domains together."""
    monkeypatch.setattr("ratelimit_service.policy.compile.MAX_RULES", 1)
    snapshot, problems = _compile(_policy(_rule("a")), _policy(_rule("b"), "second", "domain: shop.other"))

    assert snapshot.domains == {}
    assert [problem.message for problem in problems] == ["2 rules and branches; at most 1 are served"]


def _shadowed(*rules: str) -> list[str]:
    return [text.partition("rule ")[2] for _, text in _told(_policy("\n".join(rules)))]


def test_a_rule_that_an_exact_branch_hides_is_warned_about() -> None:
    """`plan=gold` has children, and nothing for a descriptor that ends at it, which bare `plan` offers."""
    gold = _rule("gold-writes", "[{key: plan, value: gold}, {key: method, value: POST}]")
    plan = _rule("per-plan", "[{key: plan, type: Any}]")

    (told,) = _shadowed(gold, plan)

    assert told.startswith("`per-plan` is not reached through `plan=gold`: that branch is tried before `plan`")
    assert told.endswith("has nothing for a descriptor that ends there, and matching does not go back")


def test_a_rule_behind_a_wider_pattern_is_warned_about() -> None:
    """A prefix that comes first takes every value of a longer one."""
    wide = _rule("wide", "[{key: k, type: Prefix, value: a}]")
    narrow = _rule("narrow", "[{key: k, type: Prefix, value: ab}]")

    assert _shadowed(narrow, wide) == []
    assert _shadowed(wide, narrow) == [
        "`narrow` is never reached: `k=a*` is tried before `k=ab*` and takes every value of it"
    ]


def test_a_bare_key_behind_a_pattern_that_takes_all_is_warned_about() -> None:
    """`*` leaves nothing to the bare key."""
    every = _rule("every", '[{key: k, type: Prefix, value: ""}]')

    assert "is never reached" in _shadowed(every, _rule("bare", "[{key: k, type: Any}]"))[0]


def test_branches_that_offer_as_much_or_are_meant_are_not_warned_about() -> None:
    """The same depth, an Allow, an exact continuation and a wider one below are all fine."""
    assert (
        _shadowed(
            _rule("gold", "[{key: plan, value: gold}]"),
            _rule("gold-post", "[{key: plan, value: gold}, {key: method, type: Any}]"),
            _rule("gold-prefix", "[{key: plan, value: gold}, {key: path, type: Prefix, value: /}]"),
            _rule("vip", "[{key: plan, value: vip}]", "action: Allow"),
            _rule("plan", "[{key: plan, type: Any}]"),
            _rule("plan-post", "[{key: plan, type: Any}, {key: method, value: POST}]"),
            _rule("plan-api", "[{key: plan, type: Any}, {key: path, type: Prefix, value: /api}]"),
            _rule("plan-page", "[{key: plan, type: Any}, {key: path, value: /page}]"),
        )
        == []
    )


def test_a_continuation_that_is_missing_is_named() -> None:
    """Bare `plan` goes on with `tenant`, `plan=gold` does not."""
    told = _shadowed(
        _rule("gold", "[{key: plan, value: gold}]"),
        _rule("tenant", "[{key: plan, type: Any}, {key: tenant, type: Any}]"),
    )

    assert "has nothing for a descriptor (tenant)" in told[0]


def test_a_trace_says_why_and_why_not() -> None:
    """For people: each entry's branch, the rule, and the rules that were not met."""
    gold = _rule("gold-writes", "[{key: plan, value: gold}, {key: method, value: POST}]")
    plan = _rule("per-plan", "[{key: plan, type: Any}]")
    api = _rule("api", "[{key: plan, type: Prefix, value: f}]")
    domain = _compile(_policy(f"{gold}\n{plan}\n{api}"))[0].domains[b"shop.checkout"]

    met = trace(domain, [(b"plan", b"free")])
    missed = trace(domain, [(b"plan", b"gold")])
    unknown = trace(domain, [(b"plan", b"gold"), (b"verb", b"GET")])
    other_value = trace(domain, [(b"plan", b"gold"), (b"method", b"GET")])
    below = trace(domain, [(b"plan", b"x"), (b"a", b"b")])

    assert met.rule is not None
    assert (met.rule.name, met.why) == ("api", "rule `api` stands at the last entry")
    assert met.steps[0].why == "no exact value; the first of 1 pattern that matches"
    assert [candidate.why for candidate in met.candidates] == [
        "`plan=f*` is tried before `plan`, and matching does not go back",
        "entry 1 is `plan=gold` there, the request has `free`",
    ]
    assert missed.why == "the rules on this branch need more entries"
    assert missed.candidates[0].why == "it has 2 entries, the request 1"
    assert unknown.steps[-1].why == "key `verb` is not known here; known: method"
    assert unknown.candidates[0].why == "entry 2 is `method` there, `verb` in the request"
    assert other_value.steps[-1].why == "key `method` is known here, but not with this value"
    assert below.steps[-1].why == "nothing is configured below this branch"
    assert trace(domain, []).why == "the descriptor has no entries"


def test_a_trace_of_an_explicit_pass_says_so() -> None:
    """A branch of upstream's YAML without a limit."""
    told = trace(_good(_UPSTREAM).domains[b"d"], [(b"free", b"1")])

    assert (told.rule, told.why) == (None, "the branch ends here without a limit")


def test_a_retired_snapshot_is_let_go_and_whoever_holds_it_keeps_it_whole() -> None:
    """Dismantling empties the list and changes nothing that is still held."""
    snapshot = _good(_UPSTREAM)
    retired = [snapshot]

    steps = sum(1 for _ in dismantle_steps(retired))

    assert retired == []
    assert steps > 5
    assert _met(snapshot, "d", "plan=gold") is not None
