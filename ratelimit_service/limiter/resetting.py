"""Begin counters anew: those that a request would be counted in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ratelimit_service.limiter.labels import Labels
from ratelimit_service.limiter.plan import Kind, Part, Plan
from ratelimit_service.limiter.planning import Planner
from ratelimit_service.limiter.refusals import as_upstream, override_refusal, refusal
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.identity import shown_values
from ratelimit_service.policy.match import text_of
from ratelimit_service.policy.snapshot import Domain
from ratelimit_service.quota.store import Charge, Store
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.wire.rls.messages import Request


class ResetCounter(msgspec.Struct, frozen=True):
    """What became of the counters of one descriptor.

    Attributes:
        descriptor: `key=value`, in order.
        rule: What it met; empty: nothing, or the limit that it carries.
        key: The counted values; empty: nothing is counted for it.
        counted: Hits were counted until now. None: the store did not answer, so it is not known whether they still are.
        what: Why nothing is counted for it, empty: something is.
    """

    descriptor: tuple[str, ...]
    rule: str
    key: tuple[str, ...]
    counted: bool | None
    what: str


class ResetAnswer(msgspec.Struct, frozen=True):
    """What became of a reset.

    Attributes:
        domain: As asked.
        problem: Nothing was reset, for this reason; empty: see `counters`.
        counters: One per descriptor.
    """

    domain: str
    problem: str = ""
    counters: tuple[ResetCounter, ...] = ()


def reset(
    domain: Domain | None,
    store: Store,
    request: Request,
    settings: LimiterSettings,
    done: Callable[[ResetAnswer], None],
) -> None:
    """Begin anew every counter that the request would be counted in, rollout and shadow limits included.

    Args:
        domain: What the request's domain is in the snapshot in force, None: unknown.
        store: Where its hits are counted.
        request: Any; its hits do not matter.
        settings: As decisions are made.
        done: Called once, when the store has answered about every counter.
    """
    name = text_of(request.domain)
    problem = refusal(request) or override_refusal(request)
    if problem is not None:
        done(ResetAnswer(name, (as_upstream(problem) if settings.compat else problem).message))
        return
    if domain is None:
        done(ResetAnswer(name, f"no policy names domain {name!r}"))
        return
    plan = Planner(settings, CounterTable(), Labels(0)).plan(domain, request)
    charged = [_charges(plan, part) for part in plan.parts]
    wanted = list(dict.fromkeys((charge.identity, charge.key) for charges in charged for charge in charges))
    said: dict[tuple[bytes, bytes], bool | None] = {}

    def tell() -> None:
        parts = zip(plan.parts, charged, strict=True)
        done(ResetAnswer(domain.name, counters=tuple(_counter(part, charges, said) for part, charges in parts)))

    if not wanted:
        tell()
    for identity, key in wanted:

        def take_in(counted: bool | None, which: tuple[bytes, bytes] = (identity, key)) -> None:
            said[which] = counted
            if len(said) == len(wanted):
                tell()

        store.reset(identity, key, take_in)


def _charges(plan: Plan, part: Part) -> Sequence[Charge]:
    """What counts for one descriptor, on both sides of a rollout."""
    of = plan.refunds if part.kind is Kind.REFUND else plan.charges
    return [charge for side in (part.side, part.other) if side is not None for charge in of[side.first : side.last]]


def _counter(part: Part, charges: Sequence[Charge], said: dict[tuple[bytes, bytes], bool | None]) -> ResetCounter:
    answers = [said[charge.identity, charge.key] for charge in charges]
    counted = True if True in answers else None if None in answers else False
    return ResetCounter(
        descriptor=tuple(f"{text_of(key)}={text_of(value)}" for key, value in part.descriptor.entries),
        rule="" if part.rule is None else part.rule.name,
        key=tuple(shown_values(charges[0].key)) if charges else (),
        counted=counted,
        what="" if charges else part.kind.value,
    )
