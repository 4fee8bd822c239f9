"""Why a request is decided as it is: matched rules, keys, limits, and why not another rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.limiter.labels import Labels
from ratelimit_service.limiter.plan import Kind, Part, Plan
from ratelimit_service.limiter.planning import Planner
from ratelimit_service.limiter.refusals import as_upstream, override_refusal, refusal
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.limiter.verdict import overall_over, statuses
from ratelimit_service.policy.match import Trace, text_of, trace
from ratelimit_service.policy.snapshot import Domain
from ratelimit_service.quota.store import Charge, Outcome, Store
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.wire.rls.messages import Request, Status


class ExplainedLimit(msgspec.Struct, frozen=True):
    """One limit that a descriptor is held to, as it stands now.

    Attributes:
        algorithm, requests, burst: The limit.
        window_us: Its window, 0 with a calendar.
        calendar: `Day Europe/Zurich`, empty without.
        role: How it takes part (`quota.store.Role`).
        used, remaining: Hits counted; hits left before this request.
        over: These hits do not fit.
        wait_us: Until they fit, -1 never; not over: until the budget is full.
    """

    algorithm: str
    requests: int
    burst: int
    window_us: int
    calendar: str
    role: str
    used: int
    remaining: int
    over: bool
    wait_us: int


class ExplainedDescriptor(msgspec.Struct, frozen=True):
    """One descriptor of the request.

    Attributes:
        entries: `key=value`, in order.
        rule, policy, written: What it met and where that is written; empty: nothing.
        what: What becomes of it, in words.
        key: The counter's key, hexadecimal.
        hits: Hits asked for.
        limits: What it is held to, the watching side of a rollout included.
        code: Its status.
        steps: How each entry was taken.
        why: Why this rule, or none.
        why_not: Other rules that begin alike, and what they lacked.
    """

    entries: tuple[str, ...]
    rule: str
    policy: str
    written: str
    what: str
    key: str
    hits: int
    limits: tuple[ExplainedLimit, ...]
    code: str
    steps: tuple[str, ...]
    why: str
    why_not: tuple[str, ...]


class Explanation(msgspec.Struct, frozen=True):
    """What would be decided now, without counting it.

    Attributes:
        version: Snapshot in force.
        domain: As asked.
        known: Some policy names the domain.
        code: Overall code; empty when `problem` is set.
        problem: The request would be refused with this text.
        descriptors: One per descriptor.
    """

    version: str
    domain: str
    known: bool
    code: str
    problem: str
    descriptors: tuple[ExplainedDescriptor, ...]


def explain(
    version: str,
    domain: Domain | None,
    store: Store,
    request: Request,
    now: Instant,
    settings: LimiterSettings,
    done: Callable[[Explanation], None],
) -> None:
    """Evaluate a request; only `Store.peek` is called, and no rule gets counters by it.

    Args:
        version: Of the snapshot in force.
        domain: What the request's domain is there, None: unknown.
        store: Where its hits are counted.
        request: Any.
        now: One reading of the clocks.
        settings: As decisions are made.
        done: Called once, when the store has answered.
    """
    problem = refusal(request) or override_refusal(request)
    name = text_of(request.domain)
    if problem is not None:
        text = (as_upstream(problem) if settings.compat else problem).message
        done(Explanation(version, name, domain is not None, "", text, ()))
        return
    if domain is None:
        done(Explanation(version, name, known=False, code="OK", problem="", descriptors=()))
        return
    plan = Planner(settings, CounterTable(), Labels(0)).plan(domain, request)

    def tell(found: Sequence[Outcome]) -> None:
        done(_explanation(version, domain, plan, found, settings))

    if plan.charges or plan.refunds:
        store.peek((*plan.charges, *plan.refunds), now, tell)
    else:
        tell(())


def _explanation(
    version: str, domain: Domain, plan: Plan, found: Sequence[Outcome], settings: LimiterSettings
) -> Explanation:
    outcomes, refunded = found[: len(plan.charges)], found[len(plan.charges) :]
    answered = statuses(plan, outcomes, refunded)
    descriptors = tuple(
        _descriptor(plan, part, status, outcomes, trace(domain, part.descriptor.entries))
        for part, status in zip(plan.parts, answered, strict=True)
    )
    code = _code(over=overall_over(plan, outcomes, settings))
    return Explanation(version, domain.name, known=True, code=code, problem="", descriptors=descriptors)


def _descriptor(
    plan: Plan, part: Part, status: Status, outcomes: Sequence[Outcome], found: Trace
) -> ExplainedDescriptor:
    rule = part.rule
    places = _places(part)
    what = part.kind.value if part.descriptor.override is None else "the limit that it carries is charged"
    return ExplainedDescriptor(
        entries=tuple(f"{text_of(key)}={text_of(value)}" for key, value in part.descriptor.entries),
        rule="" if rule is None else rule.name,
        policy="" if rule is None else rule.policy,
        written="" if rule is None else rule.origin,
        what=what,
        key=plan.charges[places[0]].key.hex() if places else "",
        hits=part.hits,
        limits=tuple(_limit(plan.charges[place], outcomes[place]) for place in places),
        code=_code(over=status.over),
        steps=tuple(f"{step.entry}: {step.branch or 'nothing'} ({step.why})" for step in found.steps),
        why=found.why,
        why_not=tuple(f"{each.rule.name} [{each.chain}]: {each.why}" for each in found.candidates),
    )


def _places(part: Part) -> list[int]:
    """Where a descriptor's charges are in the plan."""
    if part.kind is Kind.REFUND:
        return []
    return [place for side in (part.side, part.other) if side is not None for place in range(side.first, side.last)]


def _limit(charge: Charge, outcome: Outcome) -> ExplainedLimit:
    limit: Limit = charge.limit
    calendar = "" if limit.calendar is None else f"{limit.calendar.unit.value} {limit.calendar.time_zone}"
    return ExplainedLimit(
        algorithm=limit.algorithm.value,
        requests=limit.requests,
        burst=limit.burst,
        window_us=limit.window_us,
        calendar=calendar,
        role=charge.role.value,
        used=outcome.before,
        remaining=max(0, limit.burst - outcome.before),
        over=outcome.over,
        wait_us=outcome.wait_us,
    )


def _code(*, over: bool) -> str:
    return "OVER_LIMIT" if over else "OK"
