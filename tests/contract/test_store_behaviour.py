"""One behaviour for every store: what the limiter relies on, whoever counts and whenever it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm, FailureMode
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.store import NEVER_US, Role, Source
from support.real_store import Connected, Servers, connected, real_harness
from support.store_harness import (
    BOUNDED,
    HARNESSES,
    WINDOW_US,
    StoreHarness,
    StoreOptions,
    charge,
    fixed,
    in_force,
    limit_of,
)

Make = Callable[..., StoreHarness]


REAL = {f"{mode} {servers.value}": (mode == "exact", servers) for servers in Servers for mode in ("exact", "leased")}
"""Shared stores over real servers: how they count, and how Redis is set up."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[Servers], Connected]]:
    """Real servers, started when the first test asks for them."""
    started: dict[Servers, Connected] = {}
    with contextlib.ExitStack() as stack:

        def given(kind: Servers) -> Connected:
            if kind not in started:
                started[kind] = stack.enter_context(connected(kind))
            return started[kind]

        yield given


@pytest.fixture(params=[*HARNESSES, *REAL])
def harness(request: pytest.FixtureRequest, servers: Callable[[Servers], Connected]) -> StoreHarness:
    """Each store with room enough."""
    if request.param in REAL:
        exact, kind = REAL[request.param]
        return real_harness(StoreOptions(), servers(kind), exact=exact)
    return HARNESSES[request.param](StoreOptions())


@pytest.fixture(params=BOUNDED)
def make(request: pytest.FixtureRequest) -> Make:
    """Each store that bounds its memory, with the bounds that a test chooses."""

    def build(**options: int) -> StoreHarness:
        return HARNESSES[request.param](StoreOptions(**options))

    return build


each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))


@each_algorithm
def test_exactly_the_limit_is_admitted(harness: StoreHarness, algorithm: Algorithm) -> None:
    """Of more requests than the limit, the first L pass and the rest do not."""
    limit = limit_of(algorithm, 5)

    assert [harness.admitted(charge(limit)) for _ in range(8)] == [True] * 5 + [False] * 3


@each_algorithm
def test_budget_comes_back_with_time(harness: StoreHarness, algorithm: Algorithm) -> None:
    """Two windows later all of it is there again."""
    limit = limit_of(algorithm, 5)
    harness.charge(charge(limit, hits=5))
    harness.advance(2 * WINDOW_US)

    assert harness.admitted(charge(limit, hits=5))


@each_algorithm
def test_answer_tells_what_is_left_and_what_was_counted(harness: StoreHarness, algorithm: Algorithm) -> None:
    """Remaining is after this request, before is without it; over leaves 0 and a wait."""
    limit = limit_of(algorithm, 5)
    first, second, third = (harness.charge(charge(limit, hits=hits))[0] for hits in (2, 3, 1))

    assert (first.over, first.remaining, first.before) == (False, 3, 0)
    assert (second.over, second.remaining, second.before) == (False, 0, 2)
    assert (third.over, third.remaining, third.before) == (True, 0, 5)
    assert 0 < third.wait_us <= WINDOW_US * 61 // 60
    assert not third.degraded


@each_algorithm
def test_waiting_as_told_is_enough(harness: StoreHarness, algorithm: Algorithm) -> None:
    """After `wait_us` the refused hits fit."""
    limit = limit_of(algorithm, 5)
    harness.charge(charge(limit, hits=5))
    harness.advance(harness.charge(charge(limit, hits=2))[0].wait_us)

    assert harness.admitted(charge(limit, hits=2))


def test_keys_and_rules_count_apart(harness: StoreHarness) -> None:
    """Another key and another rule have budgets of their own."""
    limit = fixed(1)

    assert all(
        harness.admitted(each) for each in (charge(limit), charge(limit, b"other"), charge(limit, rule=b"second"))
    )


# All or nothing.


def test_one_refused_descriptor_leaves_all_uncounted(harness: StoreHarness) -> None:
    """A request that does not pass takes nothing from any of its counters."""
    full, free = charge(fixed(1), b"full"), charge(fixed(9), b"free", unit=1, rule=b"second")
    harness.charge(full)
    outcomes = harness.charge(full, free)

    assert [outcome.over for outcome in outcomes] == [True, False]
    assert outcomes[1].remaining == 9
    assert harness.used(free) == 0


def test_one_refused_limit_leaves_the_others_uncounted(harness: StoreHarness) -> None:
    """Several limits of one rule count all or none."""
    short, long = charge(fixed(2)), charge(fixed(3, 6 * WINDOW_US))

    assert [harness.admitted(short, long) for _ in range(3)] == [True, True, False]
    assert (harness.used(short), harness.used(long)) == (2, 2)
    harness.advance(WINDOW_US)
    assert [harness.admitted(short, long) for _ in range(2)] == [True, False]
    assert (harness.used(short), harness.used(long)) == (1, 3)


@each_algorithm
def test_same_key_twice_must_fit_together(harness: StoreHarness, algorithm: Algorithm) -> None:
    """Two equal descriptors are two charges on one counter: both pass or neither counts."""
    limit = limit_of(algorithm, 3)
    twice = (charge(limit), charge(limit, unit=1))

    first, second = harness.charge(*twice), harness.charge(*twice)

    assert [(outcome.over, outcome.remaining) for outcome in first] == [(False, 2), (False, 1)]
    assert [outcome.over for outcome in second] == [False, True]
    assert harness.used(twice[0]) == 2


def test_same_key_twice_with_huge_hits_is_refused(harness: StoreHarness) -> None:
    """Sums of hits saturate and never wrap to something small."""
    limit = fixed(3)

    assert harness.charge(charge(limit), charge(limit, hits=MAX_HITS, unit=1))[1].over
    assert harness.used(charge(limit)) == 0


# Roles.


def test_penalty_counts_past_its_limit(harness: StoreHarness) -> None:
    """What is charged after the response becomes a debt, and the next check is over."""
    penalty = charge(fixed(10), role=Role.PENALTY, hits=25)
    outcome = harness.charge(penalty)[0]

    assert outcome.over
    assert harness.charge(charge(fixed(10), role=Role.PENALTY, hits=0))[0].over
    assert not harness.admitted(charge(fixed(10)))


def test_penalty_counts_whatever_its_companions_say(harness: StoreHarness) -> None:
    """A penalty is charged although another descriptor refuses the request."""
    full, penalty = charge(fixed(1), rule=b"full"), charge(fixed(10), role=Role.PENALTY, hits=4, unit=1)
    harness.charge(full)
    harness.charge(full, penalty)

    assert harness.used(penalty) == 4


def test_penalty_that_does_not_fit_refuses_its_companions(harness: StoreHarness) -> None:
    """A penalty's limit is enforced like any other."""
    penalty, other = charge(fixed(1), role=Role.PENALTY, hits=2), charge(fixed(9), unit=1, rule=b"other")

    assert not harness.admitted(penalty, other)
    assert harness.used(other) == 0


@each_algorithm
def test_debt_is_worked_off_with_time(harness: StoreHarness, algorithm: Algorithm) -> None:
    """A debt ends: after enough windows the limit admits again."""
    limit = limit_of(algorithm, 5)
    harness.charge(charge(limit, role=Role.PENALTY, hits=12))
    harness.advance(4 * WINDOW_US)

    assert harness.admitted(charge(limit, hits=5))


@each_algorithm
def test_counts_saturate(harness: StoreHarness, algorithm: Algorithm) -> None:
    """Penalties of the greatest hits, again and again, are over and stay over."""
    limit = limit_of(algorithm, 5)
    outcomes = [harness.charge(charge(limit, role=Role.PENALTY, hits=MAX_HITS))[0] for _ in range(3)]

    assert all(outcome.over for outcome in outcomes)
    assert not harness.admitted(charge(limit))


def test_shadow_never_rejects_and_counts_what_fits(harness: StoreHarness) -> None:
    """A shadow charge counts to its limit, then says over without taking part in the verdict."""
    shadow, other = charge(fixed(2), role=Role.SHADOW, unit=1), charge(fixed(9), rule=b"other")
    overs = [[outcome.over for outcome in harness.charge(shadow, other)] for _ in range(3)]

    assert overs == [[False, False], [False, False], [True, False]]
    assert (harness.used(shadow), harness.used(other)) == (2, 3)


def test_shadow_of_a_refused_request_is_not_counted(harness: StoreHarness) -> None:
    """What is refused is not in the shadow's count either."""
    shadow, full = charge(fixed(2), role=Role.SHADOW, unit=1), charge(fixed(1), hits=2, rule=b"full")
    outcomes = harness.charge(shadow, full)

    assert (outcomes[0].over, outcomes[0].remaining) == (False, 2)
    assert harness.used(shadow) == 0


def test_limits_of_one_shadow_unit_count_all_or_none(harness: StoreHarness) -> None:
    """Of a shadow rule with two limits, both count or neither."""
    tight = charge(fixed(1), role=Role.SHADOW)
    wide = charge(fixed(9, 6 * WINDOW_US), role=Role.SHADOW)
    harness.charge(tight, wide)
    harness.charge(tight, wide)

    assert (harness.used(tight), harness.used(wide)) == (1, 1)


def test_quota_refuses_when_all_are_over(harness: StoreHarness) -> None:
    """While one quota unit fits, the request passes and that one counts; then nothing counts."""
    small = charge(fixed(1), role=Role.QUOTA, rule=b"small")
    large = charge(fixed(2), role=Role.QUOTA, unit=1, rule=b"large")
    other = charge(fixed(9), unit=2, rule=b"other")
    overs = [[outcome.over for outcome in harness.charge(small, large, other)] for _ in range(3)]

    assert overs == [[False, False, False], [True, False, False], [True, True, False]]
    assert [harness.used(each) for each in (small, large, other)] == [1, 2, 2]


def test_observer_is_judged_and_never_counted(harness: StoreHarness) -> None:
    """Two limits on one count: the enforced one counts, the observed one says what it would have said."""
    enforced, observed = charge(fixed(3)), charge(fixed(2), role=Role.OBSERVE)
    outcomes = [harness.charge(enforced, observed) for _ in range(3)]

    assert [observed_outcome.over for _, observed_outcome in outcomes] == [False, False, True]
    assert [observed_outcome.remaining for _, observed_outcome in outcomes] == [1, 0, 0]
    assert harness.used(enforced) == 3


# Hits.


@each_algorithm
def test_check_is_over_when_nothing_is_left(harness: StoreHarness, algorithm: Algorithm) -> None:
    """Hits 0 ask without counting; at the limit they are over."""
    limit = limit_of(algorithm, 2)
    answers = []
    for _ in range(3):
        answers.append(harness.charge(charge(limit, hits=0))[0].over)
        harness.charge(charge(limit))

    assert answers == [False, False, True]


@each_algorithm
@pytest.mark.parametrize("hits", [6, MAX_HITS])
def test_hits_that_can_never_fit_are_refused_and_not_counted(
    harness: StoreHarness, algorithm: Algorithm, hits: int
) -> None:
    """More than the limit holds: over, never to fit, and nothing is taken."""
    limit = limit_of(algorithm, 5)
    outcome = harness.charge(charge(limit, hits=hits))[0]

    assert (outcome.over, outcome.wait_us, outcome.remaining) == (True, NEVER_US, 0)
    assert harness.admitted(charge(limit, hits=5))


def test_limit_of_zero_is_always_over(harness: StoreHarness) -> None:
    """A limit of 0 refuses hits and checks alike."""
    assert [harness.charge(charge(fixed(0), hits=hits))[0].over for hits in (1, 0)] == [True, True]


# Refunds, peeks, resets.


@each_algorithm
def test_refund_gives_budget_back(harness: StoreHarness, algorithm: Algorithm) -> None:
    """What was given back can be spent again, and no more."""
    limit = limit_of(algorithm, 5)
    harness.charge(charge(limit, hits=5))
    left = harness.refund(charge(limit, hits=2))[0]

    assert (left.over, left.remaining, left.before) == (False, 2, 3)
    assert [harness.admitted(charge(limit)) for _ in range(3)] == [True, True, False]


@each_algorithm
def test_refund_stops_at_zero(harness: StoreHarness, algorithm: Algorithm) -> None:
    """A refund of more than was counted, or of an unknown key, makes no budget."""
    limit = limit_of(algorithm, 5)
    harness.charge(charge(limit, hits=3))
    answers = harness.refund(charge(limit, hits=MAX_HITS), charge(limit, b"unknown", hits=4))

    assert [(answer.over, answer.remaining) for answer in answers] == [(False, 5), (False, 5)]
    assert [harness.admitted(charge(limit, hits=5)), harness.admitted(charge(limit))] == [True, False]


def test_refund_of_an_unknown_rule_makes_no_budget(harness: StoreHarness) -> None:
    """Nothing was ever counted there: nothing changes."""
    assert harness.refund(charge(fixed(5), hits=2))[0].remaining == 5
    assert not harness.admitted(charge(fixed(5), hits=6))


@each_algorithm
def test_peek_counts_nothing(harness: StoreHarness, algorithm: Algorithm) -> None:
    """A peek answers like a charge and leaves no trace."""
    limit = limit_of(algorithm, 2)
    peeked = [harness.peek(charge(limit, hits=2))[0] for _ in range(3)]

    assert peeked == [harness.charge(charge(limit, hits=2))[0]] * 3


def test_reset_forgets_one_counter(harness: StoreHarness) -> None:
    """A reset counter begins anew, its neighbours do not; the answer says whether it was there."""
    mine, other = charge(fixed(1)), charge(fixed(1), b"other")
    harness.charge(mine)
    harness.charge(other)

    assert [harness.reset(mine), harness.reset(mine), harness.reset(charge(fixed(1), rule=b"no"))] == [
        True,
        False,
        False,
    ]
    assert [harness.admitted(mine), harness.admitted(mine), harness.admitted(other)] == [True, False, False]


def test_late_charge_counts_like_one_at_once(harness: StoreHarness) -> None:
    """`charge_later` answers later, and with the same counts."""
    limit = fixed(2)

    assert [harness.charge_later(charge(limit))[0].over for _ in range(3)] == [False, False, True]
    assert not harness.admitted(charge(limit))


def test_late_charge_is_judged_by_the_clock_of_its_turn(harness: StoreHarness) -> None:
    """A budget that has come back while a charge waited is there for it."""
    limit = fixed(1)
    harness.charge(charge(limit))
    harness.advance(WINDOW_US)

    assert not harness.charge_later(charge(limit))[0].over


# Usage.


def test_usage_pages_through_a_domain(harness: StoreHarness) -> None:
    """Every counter of the domain is on exactly one page of at most 100."""
    first, second, foreign = (charge(fixed(9), rule=rule) for rule in (b"one", b"two", b"foreign"))
    harness.store.apply(in_force(first, second) | in_force(foreign, domain="bank"))
    keys = [b"%d" % number for number in range(130)]
    for key in keys:
        for each in (first, second, foreign):
            harness.charge(msgspec.structs.replace(each, key=key))
    pages = [harness.usage("shop", page) for page in range(4)]

    assert [len(page) for page in pages] == [100, 100, 60, 0]
    assert sorted((usage.identity, usage.key) for page in pages for usage in page) == sorted(
        (each.identity, key) for each in (first, second) for key in keys
    )


def test_usage_passes_over_what_has_expired(harness: StoreHarness) -> None:
    """After the window's end only new counters are on the pages, each once."""
    first, second = (charge(fixed(9), rule=rule) for rule in (b"one", b"two"))
    harness.store.apply(in_force(first, second))
    for number in range(150):
        harness.charge(msgspec.structs.replace(first, key=b"old%d" % number))
    harness.clock.advance(WINDOW_US)
    for number in range(120):
        harness.charge(msgspec.structs.replace(second, key=b"new%d" % number))
    pages = [harness.usage("shop", page) for page in range(3)]

    assert [len(page) for page in pages] == [100, 20, 0]
    assert len({usage.key for page in pages for usage in page}) == 120


def test_usage_shows_what_is_used_and_left(harness: StoreHarness) -> None:
    """A counter is shown with its use, its rest by the limit in force, and the time until it is whole."""
    spent = charge(fixed(9), hits=4)
    harness.store.apply(in_force(spent))
    harness.charge(spent)
    (usage,) = harness.usage("shop", 0)

    assert (usage.key, usage.used, usage.remaining) == (b"key", 4, 5)
    assert 0 < usage.wait_us <= WINDOW_US


# Limits changed in use.


@each_algorithm
@pytest.mark.parametrize(("requests", "admitted"), [(8, 3), (5, 0), (3, 0)])
def test_changed_limit_keeps_the_count(
    harness: StoreHarness, algorithm: Algorithm, requests: int, admitted: int
) -> None:
    """A limit that is raised admits the difference, one that is lowered nothing more."""
    old, new = (charge(limit_of(algorithm, number)) for number in (5, requests))
    harness.store.apply(in_force(old))
    harness.charge(msgspec.structs.replace(old, hits=5))
    harness.store.apply(in_force(new))

    # A bucket converts its backlog by the new rate (reference: limit changed in use), so it may hold one hit less.
    assert sum(harness.admitted(new) for _ in range(10)) <= admitted
    assert not harness.admitted(new)


def test_apply_of_the_same_limits_changes_nothing(harness: StoreHarness) -> None:
    """A reload in mid-window does not refill anybody, overrides included."""
    known, override = charge(fixed(2)), charge(fixed(2), rule=b"override")
    harness.store.apply(in_force(known))
    verdicts = []
    for _ in range(3):
        verdicts += [harness.admitted(known), harness.admitted(override)]
        harness.store.apply(in_force(known))

    assert verdicts == [True, True, True, True, False, False]


# Bounded memory.


def test_crowded_rule_still_admits_at_most_the_limit_for_each_key(make: Make) -> None:
    """Keys that share a hashed counter are limited together, never beyond the limit."""
    harness = make(max_keys=64)
    limit = fixed(2, 1_000 * WINDOW_US)
    keys = [b"%d" % number for number in range(500)]
    admitted = {key: sum(harness.admitted(charge(limit, key)) for _ in range(4)) for key in keys}

    assert max(admitted.values()) == 2
    assert sum(admitted.values()) <= 64 * 2


def test_one_rule_leaves_room_for_another(make: Make) -> None:
    """However many keys a rule sees, another rule's keys still get counters of their own."""
    harness = make(max_keys=400)
    noisy, quiet = charge(fixed(1), rule=b"noisy"), charge(fixed(1), rule=b"quiet")
    harness.store.apply(in_force(noisy, quiet))
    for number in range(1_000):
        harness.charge(msgspec.structs.replace(noisy, key=b"%d" % number))
    outcomes = [harness.charge(msgspec.structs.replace(quiet, key=b"%d" % number))[0] for number in range(50)]

    assert not any(outcome.over or outcome.degraded for outcome in outcomes)


@pytest.mark.parametrize(
    ("failure", "over"),
    [
        (FailureMode.CLOSED, True),
        (FailureMode.RESERVED, True),
        (FailureMode.SHARE, True),
        (FailureMode.OPEN, False),
    ],
)
def test_failure_mode_answers_where_there_is_no_room_at_all(make: Make, failure: FailureMode, over: bool) -> None:
    """With not even a hashed counter left, Open lets pass and the others deny; both are marked."""
    harness = make(max_keys=2)
    asked = charge(fixed(9, 1_000 * WINDOW_US))
    harness.store.apply(in_force(asked, failure=failure))
    outcomes = [harness.charge(msgspec.structs.replace(asked, key=b"%d" % number))[0] for number in range(20)]

    degraded = [outcome for outcome in outcomes if outcome.degraded]
    assert {(outcome.over, outcome.source) for outcome in degraded} == {(over, Source.FALLBACK)}
    assert len(degraded) >= 16


def test_no_room_never_turns_a_sure_refusal_into_a_pass(make: Make) -> None:
    """Even under Open, hits that no budget could hold are refused."""
    harness = make(max_keys=1)
    asked = charge(fixed(9, 1_000 * WINDOW_US))
    harness.store.apply(in_force(asked, failure=FailureMode.OPEN))
    harness.charge(asked)
    outcome = harness.charge(msgspec.structs.replace(asked, key=b"new", hits=10))[0]

    assert (outcome.over, outcome.wait_us, outcome.degraded) == (True, NEVER_US, False)


def test_request_is_all_or_nothing_under_crowding_too(make: Make) -> None:
    """A charge that finds no room refuses its companions, and nothing is counted."""
    harness = make(max_keys=1)
    known, new = charge(fixed(9, 1_000 * WINDOW_US)), charge(fixed(9, 1_000 * WINDOW_US), b"new", unit=1)
    harness.charge(known)
    outcomes = harness.charge(known, new)

    assert [outcome.over for outcome in outcomes] == [False, True]
    assert harness.used(known) == 1
