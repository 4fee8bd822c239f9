"""Decides calls: request bytes in, response bytes out (DESIGN §4).

A request is resolved to a plan, remembered by its bytes; its charges go to the store of its domain's profile in one
call; the outcomes become statuses, metrics and bytes. A store that answers later gets a callback, and the call waits
there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.limiter.accounting import Accountant
from ratelimit_service.limiter.call import Call
from ratelimit_service.limiter.explain import Explanation, explain
from ratelimit_service.limiter.headers import response_headers
from ratelimit_service.limiter.labels import Labels
from ratelimit_service.limiter.memo import Memo
from ratelimit_service.limiter.metadata import dynamic_metadata
from ratelimit_service.limiter.plan import Plan
from ratelimit_service.limiter.planning import Planner
from ratelimit_service.limiter.refusals import NO_CONFIGURATION, STORE_ERROR, as_upstream, override_refusal, refusal
from ratelimit_service.limiter.resetting import ResetAnswer, reset
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.limiter.several import Forms, SeveralPlan, answer_several, plan_directly, plan_several
from ratelimit_service.limiter.simple import Recipes, SimplePlan, answer_simple
from ratelimit_service.limiter.verdict import overall_over, statuses
from ratelimit_service.policy.snapshot import Domain, Snapshot
from ratelimit_service.quota.store import Outcome, Source, Store
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.wire.grpc.status import Answer, GrpcCode, GrpcError, Reply
from ratelimit_service.wire.rls.decode import MalformedRequest, decode_request
from ratelimit_service.wire.rls.encode import encode_response
from ratelimit_service.wire.rls.messages import Request, Status, Verdict

__all__ = ["OWN_STORE", "Limiter", "LimiterSettings"]

OWN_STORE: Final = ""
"""Profile of the service's own store, which stands in for a profile that has none."""

_MEMORY: Final = Source.MEMORY


class Limiter:
    """Implements `Decider`. Not thread-safe: one limiter belongs to one event loop.

    Args:
        stores: By profile, `OWN_STORE` among them.
        settings: Process-wide switches.
        counters: Metrics that are added to.
    """

    def __init__(self, stores: Mapping[str, Store], settings: LimiterSettings, counters: CounterTable) -> None:
        self._stores = stores
        self._given = settings
        self._counters = counters
        self._sources = counters.sources
        self._labels = Labels(counters.max_series)
        self._forms = Forms()
        self._follow(settings)
        self._memo: Memo[Plan | SimplePlan | SeveralPlan] = Memo(settings.memo_bytes)
        self._snapshot: Snapshot | None = None

    def _follow(self, settings: LimiterSettings) -> None:
        """Decide by these switches from now on; calls that wait for a store are answered by them too."""
        self._settings = settings
        self._planner = Planner(settings, self._counters, self._labels)
        self._recipes = Recipes(settings, self._counters, self._labels, self._store_of)
        self._accountant = Accountant(settings, self._counters)

    @property
    def is_shadow(self) -> bool:
        """Whether nothing is rejected, by `--shadow-mode` or by the kill switch."""
        return self._settings.shadow_mode

    def apply(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force for every call from now on; counts of limits that stay are kept."""
        for profile, store in self._stores.items():
            limits = snapshot.limits.get(profile, {})
            if profile == OWN_STORE:
                homeless = [of for name, of in snapshot.limits.items() if name not in self._stores]
                for of_profile in homeless:
                    limits = {**limits, **of_profile}
            store.apply(limits)
        self._snapshot = snapshot
        shadow_mode = self._given.shadow_mode or snapshot.shadow
        if shadow_mode != self._settings.shadow_mode:
            self._follow(msgspec.structs.replace(self._given, shadow_mode=shadow_mode))
        self._recipes.clear()
        self._forms.clear()
        self._memo.clear()

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        """See `Decider.decide`."""
        plan = self._memo.get(body)
        if plan is None:
            resolved = self._resolve(body)
            if isinstance(resolved, GrpcError):
                self._counters.error(resolved.code)
                return resolved
            if isinstance(resolved, bytes):
                return resolved
            self._memo.offer(body, resolved)
            plan = resolved
        else:
            plan.used = True
        if type(plan) is SimplePlan:
            recipe, hits = plan.recipe, plan.hits
            take = recipe.take
            if take is None:
                at_hand = recipe.at_hand
                if at_hand is not None:
                    found = at_hand(recipe, plan.key, hits, now)
                    if found is not None:
                        self._sources.lease += 1
                        return answer_simple(recipe, hits, found)
                return self._ask(plan, now, deadline_us, reply)
            outcome = take(recipe, plan.key, hits, now)
            if outcome.source is _MEMORY:
                self._sources.memory += 1
            else:
                self._sources.add(outcome.source)
            return answer_simple(recipe, hits, outcome)
        if type(plan) is SeveralPlan:
            charge_form = plan.form.charge
            if charge_form is None:
                return self._ask_several(plan, now, deadline_us, reply)
            return self._finish_several(plan, charge_form(plan.form, plan.keys, now))
        assert isinstance(plan, Plan)
        store = self._stores.get(plan.profile, self._stores[OWN_STORE])
        return Call(plan, body, store, self._finish, deadline_us, reply).start(now)

    def evaluate(self, request: Request, now: Instant, done: Callable[[Explanation], None]) -> None:
        """Say what would be decided, and why; counts nothing. Only with a snapshot in force.

        `done` is called once, before this returns if the store answers at once.
        """
        assert self._snapshot is not None
        domain = self._snapshot.domains.get(request.domain)
        store = self._stores[OWN_STORE] if domain is None else self._store_of(domain)
        explain(self._snapshot.version, domain, store, request, now, self._settings, done)

    def reset(self, request: Request, done: Callable[[ResetAnswer], None]) -> None:
        """Begin the counters of a request anew (`resetting.reset`). Only with a snapshot in force."""
        assert self._snapshot is not None
        domain = self._snapshot.domains.get(request.domain)
        store = self._stores[OWN_STORE] if domain is None else self._store_of(domain)
        reset(domain, store, request, self._settings, done)

    def _store_of(self, domain: Domain) -> Store:
        return self._stores.get(domain.profile, self._stores[OWN_STORE])

    def _resolve(self, body: bytes) -> Plan | SimplePlan | SeveralPlan | Answer:
        """The plan of a request, an error, or the answer of a domain that has no policies."""
        if self._snapshot is not None and self._recipes.any_simple:
            directly = plan_directly(self._recipes, self._forms, body, self._snapshot.domains)
            if directly is not None:
                return directly
        compat = self._settings.compat
        try:
            request = decode_request(body)
        except MalformedRequest as malformed:
            return GrpcError(GrpcCode.UNKNOWN if compat else GrpcCode.INVALID_ARGUMENT, str(malformed))
        domain = None if self._snapshot is None else self._snapshot.domains.get(request.domain)
        if domain is not None:
            # What is simple has a domain and a few descriptors without limits of their own: nothing to refuse.
            simple = self._recipes.plan(domain, request) or plan_several(self._recipes, self._forms, domain, request)
            if simple is not None:
                return simple
        problem = refusal(request)
        if problem is None and not compat:
            problem = override_refusal(request)
        if problem is None and self._snapshot is None:
            problem = NO_CONFIGURATION
        if problem is not None:
            return as_upstream(problem) if compat else problem
        if domain is None:
            self._counters.unknown_domains += 1
            return encode_response(Verdict(over=False, statuses=(Status(over=False),) * len(request.descriptors)))
        if compat:
            problem = override_refusal(request)
            if problem is not None:
                return as_upstream(problem)
        return self._planner.plan(domain, request)

    def _ask(self, plan: SimplePlan, now: Instant, deadline_us: int, reply: Reply) -> bytes | None:
        """Decide a simple request by a store that may have to ask another process."""
        store, charges = plan.recipe.store, plan.charges
        outcomes = store.charge(charges, now)
        if outcomes is not None:
            return self._finish_simple(plan, outcomes)
        store.charge_later(charges, deadline_us, lambda late: reply(self._finish_simple(plan, late)))
        return None

    def _ask_several(self, plan: SeveralPlan, now: Instant, deadline_us: int, reply: Reply) -> bytes | None:
        """As `_ask`, of several limits."""
        store, charges = plan.form.store, plan.charges
        outcomes = store.charge(charges, now)
        if outcomes is not None:
            return self._finish_several(plan, outcomes)
        store.charge_later(charges, deadline_us, lambda late: reply(self._finish_several(plan, late)))
        return None

    def _finish_simple(self, plan: SimplePlan, outcomes: Sequence[Outcome]) -> bytes:
        self._sources.add(outcomes[0].source)
        return answer_simple(plan.recipe, plan.hits, outcomes[0])

    def _finish_several(self, plan: SeveralPlan, outcomes: Sequence[Outcome]) -> bytes:
        self._accountant.count_sources(outcomes)
        return answer_several(plan.form, outcomes)

    def _finish(self, plan: Plan, body: bytes, outcomes: Sequence[Outcome], refunded: Sequence[Outcome]) -> Answer:
        settings = self._settings
        if settings.store_errors and any(outcome.degraded for outcome in (*outcomes, *refunded)):
            # The original fails the call where its store does (DECISIONS 5, 9).
            self._counters.error(STORE_ERROR.code)
            return STORE_ERROR
        self._accountant.count(plan, outcomes)
        answered = statuses(plan, outcomes, refunded)
        over = overall_over(plan, outcomes, settings)
        headers = response_headers(plan, outcomes, answered, always=settings.response_headers)
        metadata = None
        if settings.response_dynamic_metadata:
            metadata = dynamic_metadata(decode_request(body), plan, answered)
        return encode_response(Verdict(over, answered, headers, metadata))
