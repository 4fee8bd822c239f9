"""The memo remembers what comes back, within its bytes, and never pauses."""

from __future__ import annotations

import gc
import tracemalloc

from ratelimit_service.limiter.memo import LARGEST_PLAN_BYTES, LONGEST_REMEMBERED_BYTES, Memo
from ratelimit_service.limiter.several import plan_several
from ratelimit_service.limiter.simple import SimplePlan
from support.limiters import LimiterHarness, descriptor, request
from support.snapshots import policy, snapshot_of


class FakePlan:
    """As small a plan as the memo takes."""

    def __init__(self, size_bytes: int = 100) -> None:
        self.used = False
        self.size_bytes = size_bytes


def offered_twice(memo: Memo[FakePlan], body: bytes, plan: FakePlan) -> None:
    memo.offer(body, plan)
    memo.offer(body, plan)


def test_a_request_is_remembered_when_it_comes_back() -> None:
    """The first coming is only noted."""
    memo: Memo[FakePlan] = Memo(10_000)
    plan = FakePlan()
    memo.offer(b"body", plan)
    assert memo.get(b"body") is None

    memo.offer(b"body", plan)
    assert memo.get(b"body") is plan


def test_the_oldest_unused_goes_first() -> None:
    """A plan that was used is passed over once."""
    memo: Memo[FakePlan] = Memo(1_000)
    kept = FakePlan()
    offered_twice(memo, b"a", kept)
    offered_twice(memo, b"b", FakePlan())
    kept.used = True
    offered_twice(memo, b"c", FakePlan())
    offered_twice(memo, b"d", FakePlan())

    assert memo.get(b"a") is kept
    assert memo.get(b"b") is None
    assert not kept.used


def test_plans_that_are_all_used_give_way_too() -> None:
    """The looks of one insertion are few, whatever is used."""
    memo: Memo[FakePlan] = Memo(20_000)
    for number in range(100):
        plan = FakePlan()
        offered_twice(memo, b"%d" % number, plan)
        plan.used = True

    assert len(memo) < 100
    assert memo.size_bytes <= 20_000


def test_what_is_too_long_or_too_large_is_not_remembered() -> None:
    """Nor what is larger than the whole memo."""
    memo: Memo[FakePlan] = Memo(100_000)
    offered_twice(memo, b"x" * (LONGEST_REMEMBERED_BYTES + 1), FakePlan())
    offered_twice(memo, b"large", FakePlan(LARGEST_PLAN_BYTES))
    tiny: Memo[FakePlan] = Memo(200)
    offered_twice(tiny, b"a", FakePlan())

    assert len(memo) == len(tiny) == 0
    assert memo.size_bytes == tiny.size_bytes == 0


def test_the_longest_request_is_remembered() -> None:
    """512 bytes are not above 512."""
    memo: Memo[FakePlan] = Memo(100_000)
    offered_twice(memo, b"x" * LONGEST_REMEMBERED_BYTES, FakePlan())

    assert len(memo) == 1


def test_a_request_offered_again_is_counted_once() -> None:
    """The plan that is there stays."""
    memo: Memo[FakePlan] = Memo(10_000)
    first = FakePlan()
    offered_twice(memo, b"a", first)
    size_bytes = memo.size_bytes
    memo.offer(b"a", FakePlan(500))

    assert memo.get(b"a") is first
    assert memo.size_bytes == size_bytes


def test_clearing_frees_little_by_little() -> None:
    """Each later offer frees some of what was held, and in the end all."""
    memo: Memo[FakePlan] = Memo(100_000)
    for number in range(100):
        offered_twice(memo, b"%d" % number, FakePlan())
    memo.clear()
    assert len(memo) == memo.size_bytes == 0
    assert sum(map(len, memo._graves)) == 100

    memo.offer(b"new", FakePlan())
    assert sum(map(len, memo._graves)) == 84
    for number in range(10):
        memo.offer(b"new %d" % number, FakePlan())
    assert memo._graves == []


def test_clearing_an_empty_memo_keeps_nothing() -> None:
    """Reloads without traffic pile up nothing."""
    memo: Memo[FakePlan] = Memo(100_000)
    memo.clear()

    assert memo._graves == []


def _allocated(size: int, *keys: str, is_plain: bool) -> tuple[float, float]:
    """Bytes that a remembered request takes: allocated, and by the memo's estimate."""
    limits = "limits: [{requests: 9, window: 1h}]"
    rules = "".join(f"- {{name: {key}, match: [{{key: {key}, type: Any}}], {limits}}}\n" for key in "abc")
    harness = LimiterHarness(snapshot_of(policy(rules)))
    limiter = harness.limiter
    domain = limiter._snapshot.domains[b"shop"]
    requests = [request(*(descriptor(f"{key}={number:0{size}}") for key in keys)) for number in range(300)]
    gc.collect()
    tracemalloc.start()
    for number, asked in enumerate(requests):
        simple = limiter._recipes.plan(domain, asked)
        several = plan_several(limiter._recipes, limiter._forms, domain, asked) if is_plain else None
        plan = simple or several or limiter._planner.plan(domain, asked)
        body = b"%0*d" % (size * len(keys), number)
        limiter._memo._put(body, plan)
    gc.collect()
    allocated = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return allocated / 300, limiter._memo.size_bytes / 300


def test_the_estimate_covers_what_is_allocated() -> None:
    """For simple and other plans, short and long: at least what is allocated, at most three times that."""
    for size, keys in [(8, "a"), (100, "a"), (8, "ab"), (100, "abc")]:
        for is_plain in (True, False):
            allocated, estimate = _allocated(size, *keys, is_plain=is_plain)
            assert allocated <= estimate <= 3 * allocated, (size, keys, is_plain, allocated, estimate)


def test_simple_requests_have_simple_plans() -> None:
    """The fast path is taken at all."""
    rule = "- {name: a, match: [{key: a, type: Any}], limits: [{requests: 9, window: 1h}]}"
    harness = LimiterHarness(snapshot_of(policy(rule)))
    for _ in range(2):
        harness.ask(request("a=1"))
    (plan,) = harness.limiter._memo._plans.values()

    assert isinstance(plan, SimplePlan)
