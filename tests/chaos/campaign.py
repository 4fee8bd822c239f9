"""Faults one after another in one world under load; each is judged by the history of its calls.

A phase has keys of its own, so that no phase is judged by another one's hits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from chaos.faults import Fault
from chaos.laws import MODES, RULES, Rule
from chaos.replicas import DEADLINE_US, Replica
from chaos.worlds import World

from ratelimit_service.algorithms.limit import Algorithm
from support.history import Call, excess
from support.simulation import widened

CALLS_PER_S: Final = 180
"""By each replica: above every limit, and far below what a busy core can do."""

ALLOWED_US: Final = 4_000_000
"""What a call may take beyond its deadline in a test: less than the 5 s for which a server is stopped, or it waited for
that. Two cores that twenty processes want were seen to leave one alone for seconds; figures are in docs/benchmarks."""

RECOVERED_S: Final = 20.0
"""As with `ALLOWED_US`; the goal is 2 s, and what was measured is in docs/benchmarks."""

RECOVERED_WITH_WAIT_S: Final = 60.0
"""With durability `Wait` nothing is granted until a replica of the new master is in step, which is Redis's time."""

_TICK_S: Final = 0.01
_WARM_S: Final = 1.2
_LOOK_S: Final = 0.25
_AFTER_S: Final = 1.2
_AFTER_LOAD_S: Final = 20.0
_UNBOUNDED: Final = 2**64 - 1


class Judged(msgspec.Struct, frozen=True):
    """How one rule's mode fared under one fault.

    Attributes:
        law: The one that is told: the worst.
        excess: Most hits beyond the law, over all intervals.
        bound: What the replicas' gauges said together at their highest.
        allowed: What may be: 0, or the bound; and a limit more where the store's clock went on, since what it grants
            from then on is of a later time.
        is_good: It is no more than that. A bound is of a window: what a bucket may admit beyond its law is that at
            once, and its part of it in each window of a longer interval.
    """

    mode: str
    law: str
    excess: int
    bound: int
    allowed: int
    is_good: bool


class Phase(msgspec.Struct, frozen=True):
    """One fault.

    Attributes:
        calls, admitted: Asked, and passed.
        failed: Calls without an answer; of a replica that is killed or stopped, else none.
        over_deadline: Answers later than the deadline, scheduling included.
        over_50_ms: Of these, those that were later than 50 ms.
        p50_ms, p99_ms, max_ms: Of calls to replicas that ran.
        recovered_s: From the end of the fault until every replica has had a grant again; None: it did not.
        judged: By mode.
        complaints: Crashes and the like.
    """

    setting: str
    fault: str
    calls: int
    admitted: int
    failed: int
    over_deadline: int
    over_50_ms: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    recovered_s: float | None
    judged: list[Judged]
    complaints: list[str]

    def problems(self) -> list[str]:
        """What must not be; empty: all is well."""
        found = [
            f"{each.mode}, {each.law}: {each.excess} beyond the law, {each.allowed} allowed"
            for each in self.judged
            if not each.is_good
        ]
        if self.recovered_s is None or self.recovered_s > (
            RECOVERED_WITH_WAIT_S if self.setting.endswith("wait") else RECOVERED_S
        ):
            found.append(f"recovered after {self.recovered_s} s")
        if self.max_ms * 1_000 > DEADLINE_US + ALLOWED_US:
            found.append(f"a call took {self.max_ms:.0f} ms")
        return found + self.complaints


class _Load:
    """Calls to all replicas at a steady rate, whatever becomes of them."""

    def __init__(self, replicas: Sequence[Replica], key: bytes) -> None:
        self._replicas = replicas
        self._key = key
        # By chance: in turn, a rule would be one replica's as long as the one number divides the other.
        self._chance = random.Random(1)
        self.calls: dict[str, list[Call]] = {rule.name: [] for rule in RULES}
        self.took_us: list[list[int]] = [[] for _ in replicas]
        self.failed = [0 for _ in replicas]
        self.under_way = 0

    async def run(self) -> None:
        """Call until cancelled; one that is late catches up."""
        begun, made = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - begun) * CALLS_PER_S)
            for _ in range(min(due - made, CALLS_PER_S)):
                for index in range(len(self._replicas)):
                    self._call(index, self._chance.choice(RULES))
            made = due
            await asyncio.sleep(_TICK_S)

    def _call(self, index: int, rule: Rule) -> None:
        sent_us = time.time_ns() // 1_000
        begun_us = time.monotonic_ns() // 1_000
        self.under_way += 1

        def done(admitted: bool | None) -> None:
            self.under_way -= 1
            took_us = time.monotonic_ns() // 1_000 - begun_us
            if admitted is None:
                self.failed[index] += 1
                return
            self.took_us[index].append(took_us)
            self.calls[rule.name].append(Call(sent_us, sent_us + took_us, 1, admitted))

        self._replicas[index].ask(rule, self._key, done)


class Campaign:
    """Phases in one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = itertools.count()
        self._errors: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_error)

    async def run(self, fault: Fault) -> Phase:
        """One fault under load: before, while and after it."""
        load = _Load(self._world.replicas, b"key-%d" % next(self._numbers))
        bounds: list[Counter[str]] = [Counter() for _ in self._world.replicas]
        loading = asyncio.ensure_future(load.run())
        looking = asyncio.ensure_future(self._look(bounds))
        try:
            await asyncio.sleep(_WARM_S)
            await fault.begin(self._world)
            await asyncio.sleep(fault.lasts_s)
            await fault.end(self._world)
            recovered_s = await self._recovery()
            await asyncio.sleep(_AFTER_S)
        finally:
            for task in (loading, looking):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        deadline = time.monotonic() + _AFTER_LOAD_S
        while load.under_way and time.monotonic() < deadline:  # noqa: ASYNC110 — answers come in callbacks
            await asyncio.sleep(_TICK_S)
        await self._see(bounds)
        return self._phase(fault, load, bounds, recovered_s)

    async def _recovery(self) -> float | None:
        """How long until every replica has got a grant since now."""
        begun = time.monotonic()
        before = [granted for _, granted in await self._looks()]
        while time.monotonic() - begun < RECOVERED_WITH_WAIT_S:
            now = [granted for _, granted in await self._looks()]
            # A replica that was started anew counts from 0 again.
            if all(later > earlier or 0 < later < earlier for later, earlier in zip(now, before, strict=True)):
                return round(time.monotonic() - begun, 2)
            await asyncio.sleep(_TICK_S)
        return None

    async def _looks(self) -> list[tuple[dict[str, int], int]]:
        return await asyncio.gather(*(replica.look() for replica in self._world.replicas))

    async def _look(self, bounds: list[Counter[str]]) -> None:
        while True:
            await self._see(bounds)
            await asyncio.sleep(_LOOK_S)

    async def _see(self, bounds: list[Counter[str]]) -> None:
        """Keep the highest that each replica's gauges have shown."""
        for highest, (shown, _) in zip(bounds, await self._looks(), strict=True):
            highest |= Counter(shown)

    def _phase(self, fault: Fault, load: _Load, bounds: list[Counter[str]], recovered_s: float | None) -> Phase:
        # The first replica's own stillness is not its calls' fault.
        asked = load.took_us[1:] if fault.ends_replica else load.took_us
        took_us = sorted(itertools.chain.from_iterable(asked))
        complaints = [text for replica in self._world.replicas for text in replica.complaints()] + self._errors
        failed = sum(load.failed[1:] if fault.ends_replica else load.failed)
        if failed:
            complaints.append(f"{failed} calls without an answer")
        if load.under_way:
            complaints.append(f"{load.under_way} calls never answered")
        self._errors = []
        calls = list(itertools.chain.from_iterable(load.calls.values()))
        return Phase(
            setting=self._world.setting.name,
            fault=fault.name,
            calls=len(calls),
            admitted=sum(call.admitted for call in calls),
            failed=sum(load.failed),
            over_deadline=sum(took > DEADLINE_US for took in took_us),
            over_50_ms=sum(took > 50_000 for took in took_us),
            p50_ms=_ms(took_us, 0.5),
            p99_ms=_ms(took_us, 0.99),
            max_ms=_ms(took_us, 1.0),
            recovered_s=recovered_s,
            judged=[self._judge(fault, mode.value, load, bounds) for mode in MODES],
            complaints=complaints,
        )

    def _judge(self, fault: Fault, mode: str, load: _Load, bounds: list[Counter[str]]) -> Judged:
        """The worst law of a mode, by how far its excess is beyond what it may be."""
        setting = self._world.setting
        forgets = setting.redis in fault.forgets and setting.new_master == "Learn"
        found = []
        for rule in RULES:
            if rule.mode.value == mode:
                bound = min(_UNBOUNDED, sum(highest[rule.name] for highest in bounds))
                gauge = bound if mode == "Share" or forgets else 0
                once = rule.limit.burst if fault.skips_time else 0
                over = excess(rule.limit, load.calls[rule.name]).hits
                is_good = over <= gauge + once
                if gauge + once and rule.limit.algorithm is Algorithm.TOKEN_BUCKET:
                    lawful = widened(rule.limit, gauge)
                    lawful = msgspec.structs.replace(lawful, burst=lawful.burst + once)
                    is_good = not excess(lawful, load.calls[rule.name]).hits
                found.append(Judged(mode, rule.law, over, bound, gauge + once, is_good))
        return max(found, key=lambda each: (not each.is_good, each.excess - each.allowed, each.excess))

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._errors.append(f"{context.get('message')}: {context.get('exception')!r}")


def _ms(took_us: Sequence[int], part: float) -> float:
    if not took_us:
        return 0.0
    return round(took_us[min(len(took_us) - 1, int(len(took_us) * part))] / 1_000, 2)
