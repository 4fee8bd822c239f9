"""Remembering a request, and answering it the short way, changes no answer (DECISIONS 26)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.limiter.engine import Limiter
from ratelimit_service.limiter.memo import LARGEST_PLAN_BYTES, Memo
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.limiter.several import Forms, SeveralPlan, plan_several
from ratelimit_service.limiter.simple import SimplePlan, answer_simple
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.store import NEVER_US, Outcome, Source
from ratelimit_service.transport.contract import Answer, Reply
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.limiter_laws import OTHER_SNAPSHOT, SNAPSHOT, gaps_us, requests
from support.limiters import LimiterHarness, request

outcomes = st.one_of(
    st.builds(
        Outcome,
        over=st.just(True),
        remaining=st.just(0),
        wait_us=st.sampled_from((NEVER_US, 0, 1, 1_000_000, 1_000_001, 4_096_000_000, 31_622_400_000_000)),
        before=st.integers(0, 9),
        source=st.sampled_from(Source),
        degraded=st.booleans(),
    ),
    st.builds(
        Outcome,
        over=st.just(False),
        remaining=st.sampled_from(
            (0, 1, 127, 128, 4_095, 4_096, 2**14 - 1, 2**14, 2**21 - 1, 2**21, 2**32 - 1, 2**32, 2**40)
        ),
        wait_us=st.sampled_from((0, 1, 1_000_000, 4_095_000_000, 4_095_000_001, 31_622_400_000_000)),
        before=st.integers(0, 9),
        source=st.sampled_from(Source),
        degraded=st.booleans(),
    ),
)
simple_requests = requests().filter(
    lambda asked: (
        LimiterHarness(SNAPSHOT).limiter._recipes.plan(
            SNAPSHOT.domains.get(asked.domain, SNAPSHOT.domains[b"shop"]), asked
        )
        is not None
    )
)


@given(simple_requests, outcomes)
@example(request("one=a"), Outcome(over=False, remaining=2**32, wait_us=4_096_000_000, before=0))
def test_the_short_way_is_the_long_way(asked: Request, outcome: Outcome) -> None:
    """Charges, bytes and counters are equal."""
    domain = SNAPSHOT.domains.get(asked.domain, SNAPSHOT.domains[b"shop"])
    short, long = LimiterHarness(SNAPSHOT), LimiterHarness(SNAPSHOT)
    simple = short.limiter._recipes.plan(domain, asked)
    plan = long.limiter._planner.plan(domain, asked)

    assert simple is not None
    assert simple.charges == plan.charges
    assert short.limiter._finish_simple(simple, (outcome,)) == long.limiter._finish(plan, b"", (outcome,), ())
    rule = simple.recipe.counters.rule
    assert short.counters(rule, domain.name) == long.counters(rule, domain.name) != {}
    sources = [{source: getattr(each.table.sources, source.value) for source in Source} for each in (short, long)]
    assert sources[0] == sources[1]


def plan_of(harness: LimiterHarness, asked: Request) -> SeveralPlan | None:
    """The short plan of a request to `shop`, if it has one."""
    return plan_several(harness.limiter._recipes, Forms(), SNAPSHOT.domains[b"shop"], asked)


plain_descriptors = st.builds(
    Descriptor,
    entries=st.tuples(
        st.sampled_from((b"one", b"slide", b"bucket", b"two", b"shared")), st.sampled_from((b"a", b"b"))
    ).map(lambda entry: (entry,)),
    hits=st.sampled_from((None, 0, 1, 2, 5, 2**64 - 1)),
)
plain_requests = st.builds(
    Request,
    st.just(b"shop"),
    st.lists(plain_descriptors, min_size=1, max_size=4, unique_by=lambda each: each.entries[0][0]).map(tuple),
    st.sampled_from((0, 1, 2)),
)


@given(plain_requests, st.lists(outcomes, min_size=8, max_size=8))
def test_the_short_way_of_several_limits_is_the_long_way(asked: Request, answers: list[Outcome]) -> None:
    """Charges, bytes and counters are equal, whatever the store says of each charge."""
    short, long = LimiterHarness(SNAPSHOT), LimiterHarness(SNAPSHOT)
    several = plan_of(short, asked)
    plan = long.limiter._planner.plan(SNAPSHOT.domains[b"shop"], asked)

    assert several is not None
    assert several.charges == plan.charges
    said = answers[: len(plan.charges)]
    assert short.limiter._finish_several(several, said) == long.limiter._finish(plan, b"", said, ())
    for rule in {part.side.counters.rule for part in plan.parts if part.side is not None}:
        assert short.counters(rule, "shop") == long.counters(rule, "shop") != {}
    sources = [{source: getattr(each.table.sources, source.value) for source in Source} for each in (short, long)]
    assert sources[0] == sources[1]


@given(requests())
def test_only_plain_requests_go_the_short_way(asked: Request) -> None:
    """What has a short plan is charged as its long plan says, and denies, refunds and replaces nothing."""
    harness = LimiterHarness(SNAPSHOT)
    domain = SNAPSHOT.domains.get(asked.domain, SNAPSHOT.domains[b"shop"])
    several = plan_several(harness.limiter._recipes, Forms(), domain, asked)
    plan = harness.limiter._planner.plan(domain, asked)

    assert several is None or (several.charges == plan.charges and not plan.refunds and not plan.denied)


def _apply(harness: LimiterHarness, snapshot: Snapshot) -> None:
    harness.limiter.apply(snapshot)


def _reset(harness: LimiterHarness) -> None:
    for usage in harness.usage("shop"):
        harness.memory.reset(usage.identity, usage.key, lambda _: None)


def _reclaim(harness: LimiterHarness) -> None:
    harness.advance(4_000_000)
    harness.memory.reclaim(harness.clock.read(), 1_000)


DISTURBANCES: dict[str, Callable[[LimiterHarness], None]] = {
    "none": lambda _: None,
    "reload": lambda harness: _apply(harness, OTHER_SNAPSHOT),
    "reload back": lambda harness: _apply(harness, SNAPSHOT),
    "reset": _reset,
    "reclaim": _reclaim,
}
"""What may happen between two identical requests."""
events = st.lists(
    st.tuples(st.integers(0, 2), gaps_us, st.sampled_from(["none", "none", "none", *DISTURBANCES])), max_size=25
)


def remembering(limiter_of: type[Limiter], settings: LimiterSettings) -> LimiterHarness:
    """A limiter of a class, with the memo that it has by default."""
    harness = LimiterHarness(None, settings)
    harness.limiter = limiter_of({"": harness.store}, settings, harness.table)
    harness.limiter.apply(SNAPSHOT)
    return harness


def check_that_memory_is_transparent(
    limiter_of: type[Limiter], settings: LimiterSettings, asked: list[Request], schedule: list[tuple[int, int, str]]
) -> None:
    """The law: every answer is that of a limiter which remembers nothing."""
    with_memo = remembering(limiter_of, settings)
    without = LimiterHarness(SNAPSHOT, LimiterSettings(compat=settings.compat, memo_bytes=0))
    for which, gap_us, disturbance in schedule:
        body = encode_request(asked[which % len(asked)])
        for harness in (with_memo, without):
            harness.advance(gap_us)
            DISTURBANCES[disturbance](harness)

        assert with_memo.decide(body) == without.decide(body)
    assert len(without.limiter._memo) == 0


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
@given(st.lists(requests(), min_size=1, max_size=3), events)
@example([request("one=a")], [(0, 0, name) for name in ["none", "none", "none", "reload", "none", "reset", "reclaim"]])
def test_a_remembered_request_is_answered_as_a_new_one(
    compat: bool, asked: list[Request], schedule: list[tuple[int, int, str]]
) -> None:
    """Reload, reset, reclaim or time between any two identical requests."""
    check_that_memory_is_transparent(Limiter, LimiterSettings(compat=compat), asked, schedule)


class NeverForgets(Limiter):
    """Planted: the memo is not cleared when a snapshot comes into force."""

    def apply(self, snapshot: Snapshot) -> None:
        memo, self._memo = self._memo, Memo(0)
        super().apply(snapshot)
        self._memo = memo


class CountsInPlans(Limiter):
    """Planted: a plan keeps the count that it saw, and counts on by itself."""

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        plan = self._memo.get(body)
        if not isinstance(plan, SimplePlan):
            return super().decide(body, now, deadline_us, reply)
        cells = self.__dict__.setdefault("_cells", {})
        outcome = cells.get(body)
        if outcome is None:
            (outcome,) = plan.recipe.store.charge(plan.charges, now) or ()
        else:
            hits = plan.hits
            over = outcome.remaining < hits
            outcome = Outcome(over, 0 if over else outcome.remaining - hits, outcome.wait_us, outcome.before + hits)
        cells[body] = outcome
        return answer_simple(plan.recipe, plan.hits, outcome)


@pytest.mark.parametrize(
    ("mutant", "disturbance", "entry"),
    [
        (NeverForgets, "reload", "one=a"),  # its limit is another then
        (CountsInPlans, "reset", "slide=a"),
        (CountsInPlans, "reclaim", "slide=a"),
    ],
)
def test_planted_memories_are_seen(mutant: type[Limiter], disturbance: str, entry: str) -> None:
    """Each breaks the law where the limiter itself keeps it."""
    schedule = [(0, 0, "none")] * 3 + [(0, 0, disturbance)] + [(0, 0, "none")] * 2
    asked = [request(entry)]
    check_that_memory_is_transparent(Limiter, LimiterSettings(), asked, schedule)
    with pytest.raises(AssertionError):
        check_that_memory_is_transparent(mutant, LimiterSettings(), asked, schedule)


class Weight:
    """A plan of any size."""

    def __init__(self, size_bytes: int, used: bool) -> None:
        self.size_bytes = size_bytes
        self.used = used


offers = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from((300, 2_000, LARGEST_PLAN_BYTES)), st.booleans()), max_size=200
)


@given(st.sampled_from((0, 1_000, 20_000, 60_000)), offers)
def test_the_memo_is_bounded_in_bytes_and_in_work(most_bytes: int, schedule: list[tuple[int, int, bool]]) -> None:
    """Its size is never above its bound and is what it holds; one offer forgets at most what makes room."""
    memo: Memo[Weight] = Memo(most_bytes)
    for number, size_bytes, used in schedule:
        before = len(memo)
        memo.offer(b"%d" % number, Weight(size_bytes, used))
        held = sum(160 + 3 * len(body) + plan.size_bytes for body, plan in memo._plans.items())

        assert memo.size_bytes == held <= most_bytes
        assert len(memo._queue) == len(memo)
        assert before - len(memo) <= LARGEST_PLAN_BYTES // 500
