"""`decide` against a plain reading of its rules, and bugs that the reading must catch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import msgspec
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.quota.decision import MAX_HITS, Decision, Judge, decide, is_over
from ratelimit_service.quota.store import Charge, Outcome, Role
from support.plain_reading import PlainReading

Decide = Callable[[Sequence[Charge], Sequence[str], Judge], Decision]

LIMIT = Limit(Algorithm.FIXED_WINDOW, requests=10, window_us=1_000_000, burst=10)


def judged_by(left: dict[Hashable, int], counters: Sequence[str]) -> Judge:
    """Judge hits against what is left of each counter."""

    def judge(index: int, hits: int) -> Outcome:
        rest = left[counters[index]]
        over = hits > rest or (hits == 0 and rest <= 0)
        return Outcome(over=over, remaining=0 if over else rest - hits, wait_us=0, before=10 - rest)

    return judge


def charge(role: Role, hits: int = 1, unit: int = 0) -> Charge:
    """A charge; which counter it names is said beside it."""
    return Charge(identity=b"rule", limit=LIMIT, key=b"key", hits=hits, role=role, unit=unit)


def follows_the_reading(
    decider: Decide, charges: Sequence[Charge], counters: Sequence[str], left: dict[Hashable, int]
) -> None:
    """The law: verdict and counted charges are those of the plain reading, and answers agree with both."""
    judge = judged_by(left, counters)
    decision = decider(charges, counters, judge)
    reading = PlainReading(charges, counters, dict(left))

    assert decision.over == reading.over
    assert [index for index, counted in enumerate(decision.counted) if counted] == sorted(reading.counted)
    assert is_over(charges, decision.outcomes) == decision.over
    for index, each in enumerate(charges):
        alone = judge(index, each.hits)
        outcome = decision.outcomes[index]
        assert outcome.over or not alone.over, "what does not fit alone does not fit beside others"
        silent = each.hits and not decision.counted[index] and not outcome.over
        observed = each.role is Role.OBSERVE and not decision.over
        assert not silent or observed or outcome == judge(index, 0), "what is not counted is not taken off"


requests = st.lists(
    st.tuples(
        st.builds(charge, role=st.sampled_from(Role), hits=st.integers(0, 4), unit=st.integers(0, 2)),
        st.sampled_from("abc"),
    ),
    min_size=1,
    max_size=6,
)
lefts = st.fixed_dictionaries({name: st.integers(-1, 5) for name in "abc"})


@given(requests, lefts)
@example([(charge(Role.ENFORCE), "a"), (charge(Role.ENFORCE, unit=1), "a")], {"a": 1, "b": 0, "c": 0})
@example([(charge(Role.QUOTA), "a"), (charge(Role.QUOTA, unit=1), "a")], {"a": 1, "b": 0, "c": 0})
@example([(charge(Role.PENALTY), "a"), (charge(Role.ENFORCE), "b")], {"a": 1, "b": 0, "c": 0})
@example([(charge(Role.ENFORCE), "a"), (charge(Role.QUOTA), "b"), (charge(Role.SHADOW), "a")], {"a": 1, "b": 0, "c": 0})
def test_decide_follows_the_plain_reading(request: list[tuple[Charge, str]], left: dict[Hashable, int]) -> None:
    """Whatever roles, units and shared counters a request has, the decision is that of the rules."""
    charges, counters = zip(*request, strict=True)

    follows_the_reading(decide, charges, counters, left)


def _recounted(decision: Decision, counted: list[bool]) -> Decision:
    return msgspec.structs.replace(decision, counted=counted)


def counts_shadow_of_refused(charges: Sequence[Charge], counters: Sequence[str], judge: Judge) -> Decision:
    """Bug: a shadow charge counts although the request does not pass."""
    decision = decide(charges, counters, judge)
    pairs = zip(charges, decision.counted, decision.outcomes, strict=True)
    return _recounted(decision, [done or (each.role is Role.SHADOW and not out.over) for each, done, out in pairs])


def spares_penalties_of_refused(charges: Sequence[Charge], counters: Sequence[str], judge: Judge) -> Decision:
    """Bug: a penalty counts only when the request passes."""
    decision = decide(charges, counters, judge)
    return _recounted(decision, [done and not decision.over for done in decision.counted])


def counts_each_alone(charges: Sequence[Charge], counters: Sequence[str], judge: Judge) -> Decision:
    """Bug: an enforced charge that fits counts although its companion does not."""
    decision = decide(charges, counters, judge)
    return _recounted(
        decision,
        [
            done or (each.role is Role.ENFORCE and not out.over)
            for each, done, out in zip(charges, decision.counted, decision.outcomes, strict=True)
        ],
    )


def counts_observers(charges: Sequence[Charge], counters: Sequence[str], judge: Judge) -> Decision:
    """Bug: an observer counts."""
    decision = decide(charges, counters, judge)
    return _recounted(
        decision,
        [done or each.role is Role.OBSERVE for each, done in zip(charges, decision.counted, strict=True)],
    )


def refuses_at_any_quota(charges: Sequence[Charge], counters: Sequence[str], judge: Judge) -> Decision:
    """Bug: one quota unit that is over refuses the request."""
    enforced = [
        msgspec.structs.replace(each, role=Role.ENFORCE) if each.role is Role.QUOTA else each for each in charges
    ]
    return decide(enforced, counters, judge)


def overlooks_shared_counters(charges: Sequence[Charge], counters: Sequence[str], judge: Judge) -> Decision:
    """Bug: two charges on one counter are judged as if each were alone."""
    return decide(charges, list(range(len(charges))), judge)


def splits_units(charges: Sequence[Charge], counters: Sequence[str], judge: Judge) -> Decision:
    """Bug: the limits of one shadow or quota unit count one by one."""
    return decide([msgspec.structs.replace(each, unit=index) for index, each in enumerate(charges)], counters, judge)


def takes_off_what_is_not_counted(charges: Sequence[Charge], counters: Sequence[str], judge: Judge) -> Decision:
    """Bug: a companion that was not charged is shown decremented."""
    decision = decide(charges, counters, judge)
    outcomes = [
        out if out.over else msgspec.structs.replace(out, remaining=max(0, out.remaining - 1))
        for out in decision.outcomes
    ]
    return msgspec.structs.replace(decision, outcomes=outcomes)


@pytest.mark.parametrize(
    "mutant",
    [
        counts_shadow_of_refused,
        spares_penalties_of_refused,
        counts_each_alone,
        counts_observers,
        refuses_at_any_quota,
        overlooks_shared_counters,
        splits_units,
        takes_off_what_is_not_counted,
    ],
)
def test_plain_reading_catches_planted_bug(mutant: Decide) -> None:
    """Each planted bug breaks the law."""

    @settings(max_examples=2_000, database=None, derandomize=True, report_multiple_bugs=False, phases=[Phase.generate])
    @given(requests, lefts)
    def law(request: list[tuple[Charge, str]], left: dict[Hashable, int]) -> None:
        charges, counters = zip(*request, strict=True)
        follows_the_reading(mutant, charges, counters, left)

    with pytest.raises(AssertionError):
        law()


def test_sums_of_hits_saturate() -> None:
    """Two charges of the greatest hits on one counter are judged as the greatest hits, not as more."""
    asked: list[int] = []

    def judge(index: int, hits: int) -> Outcome:
        asked.append(hits)
        return Outcome(over=False, remaining=0, wait_us=0, before=0)

    decide([charge(Role.ENFORCE, MAX_HITS), charge(Role.PENALTY, MAX_HITS)], ["a", "a"], judge)

    assert max(asked) == MAX_HITS


def test_check_asks_about_the_counter_as_found() -> None:
    """A check beside a charge on the same counter is not refused by that charge."""
    left: dict[Hashable, int] = {"a": 1}
    charges = [charge(Role.ENFORCE), charge(Role.ENFORCE, hits=0, unit=1)]

    decision = decide(charges, ["a", "a"], judged_by(left, ["a", "a"]))

    assert not decision.over
    assert decision.counted == [True, True]
