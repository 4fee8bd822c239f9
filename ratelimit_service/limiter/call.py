"""One call from its plan to its answer, whether the store answers at once or later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.limiter.plan import Plan
from ratelimit_service.quota.store import Outcome, Store
from ratelimit_service.wire.grpc.status import Answer, Reply

Finish = Callable[[Plan, bytes, Sequence[Outcome], Sequence[Outcome]], Answer]
"""Makes the answer: plan, request bytes, outcomes of its charges, outcomes of its refunds."""


class Call:
    """Gives back first, so that what the same request charges finds the room, then charges, then answers.

    Args:
        plan: What is charged.
        body: The request.
        store: Where.
        finish: Makes the answer.
        deadline_us: Boot time by which the store owes its outcomes.
        reply: Takes an answer that is not there when `start` returns.
    """

    __slots__ = ("_answer", "_body", "_deadline_us", "_finish", "_is_late", "_plan", "_refunded", "_reply", "_store")

    def __init__(self, plan: Plan, body: bytes, store: Store, finish: Finish, deadline_us: int, reply: Reply) -> None:
        self._plan = plan
        self._body = body
        self._store = store
        self._finish = finish
        self._deadline_us = deadline_us
        self._reply = reply
        self._refunded: Sequence[Outcome] = ()
        self._answer: Answer | None = None
        self._is_late = False

    def start(self, now: Instant) -> Answer | None:
        """The answer, or None: `reply` gets it later."""
        if self._plan.refunds:
            self._store.refund(self._plan.refunds, now, lambda outcomes: self._charge(outcomes, now))
        else:
            self._charge((), now)
        self._is_late = True
        return self._answer

    def _charge(self, refunded: Sequence[Outcome], now: Instant) -> None:
        self._refunded = refunded
        charges = self._plan.charges
        outcomes = self._store.charge(charges, now) if charges else ()
        if outcomes is None:
            self._store.charge_later(charges, self._deadline_us, self._end)
        else:
            self._end(outcomes)

    def _end(self, outcomes: Sequence[Outcome]) -> None:
        answer = self._finish(self._plan, self._body, outcomes, self._refunded)
        if self._is_late:
            self._reply(answer)
        else:
            self._answer = answer
