"""A limiter over memory, asked as a transport asks it, with clock and loop in the test's hands."""

from __future__ import annotations

import msgspec

from ratelimit_service.limiter.engine import OWN_STORE, Limiter
from ratelimit_service.limiter.explain import Explanation
from ratelimit_service.limiter.resetting import ResetAnswer
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.quota.store import Store, Usage
from ratelimit_service.quota.upstream import UpstreamMemoryStore
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.telemetry.counters import RuleCounters
from ratelimit_service.wire.grpc.status import Answer, GrpcError
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Override, Request, Status, Verdict
from support.clocks import ManualClock
from support.deferred_store import DeferredStore
from support.schedulers import ManualScheduler

START_US = 1_700_000_000_000_000


class LimiterHarness:
    """One limiter and its parts.

    Args:
        snapshot: In force from the start, None: nothing is.
        settings: Of the limiter; `compat` chooses the store too.
        deferred: The store answers every call later.
        start_us: Wall time.
        max_keys: Of the store.
        prefix: Of the store's keys in compat mode.
        max_series: Of the counters.
    """

    def __init__(
        self,
        snapshot: Snapshot | None,
        settings: LimiterSettings = LimiterSettings(),  # noqa: B008 — frozen
        *,
        deferred: bool = False,
        start_us: int = START_US,
        max_keys: int = 10_000,
        prefix: bytes = b"",
        max_series: int = 1_000,
    ) -> None:
        self.clock = ManualClock(wall_us=start_us)
        self._loop = ManualScheduler()
        call_soon = self._loop.call_soon
        self.memory: MemoryStore | UpstreamMemoryStore
        if settings.compat:
            self.memory = UpstreamMemoryStore(clock=self.clock, prefix=prefix, max_keys=max_keys, call_soon=call_soon)
        else:
            self.memory = MemoryStore(clock=self.clock, max_keys=max_keys, call_soon=call_soon, hash_key=b"tests")
        self.store: Store = DeferredStore(self.memory, call_soon) if deferred else self.memory
        self.table = CounterTable(max_series)
        self.limiter = Limiter({OWN_STORE: self.store}, settings, self.table)
        if snapshot is not None:
            self.limiter.apply(snapshot)

    def decide(self, body: bytes) -> Answer:
        """The one answer of a call, at once or later; a second answer or an early one fails the test."""
        late: list[Answer] = []
        now = self.clock.read()
        answer = self.limiter.decide(body, now, now.boot_us + 10_000, late.append)
        assert late == []
        self._loop.run()
        (only,) = late if answer is None else (*late, answer)
        return only

    def ask(self, asked: Request) -> Verdict:
        """The verdict on a request that is not refused."""
        answer = self.decide(encode_request(asked))
        assert isinstance(answer, bytes), answer
        return decode_response(answer)

    def refused(self, asked: Request) -> GrpcError:
        """The error that a request is refused with."""
        answer = self.decide(encode_request(asked))
        assert isinstance(answer, GrpcError), answer
        return answer

    def explain(self, asked: Request) -> Explanation:
        """`Limiter.evaluate`."""
        told: list[Explanation] = []
        self.limiter.evaluate(asked, self.clock.read(), told.append)
        self._loop.run()
        (only,) = told
        return only

    def reset(self, asked: Request) -> ResetAnswer:
        """`Limiter.reset`."""
        told: list[ResetAnswer] = []
        self.limiter.reset(asked, told.append)
        self._loop.run()
        (only,) = told
        return only

    def counters(self, rule: str, domain: str = "shop") -> dict[str, int]:
        """What a rule's counters hold, zeros left out."""
        found = self.table._by_name.get((domain, rule), RuleCounters("", ""))
        names = ("ok", "over", "shadow_over", "allow", "deny", "hits", "near_limit_hits")
        return {name: value for name in names if (value := getattr(found, name))}

    def usage(self, domain: str = "shop") -> list[Usage]:
        """Live counters of a domain, the first page."""
        found: list[Usage] = []
        self.store.usage(domain, 0, lambda usages: found.extend(usages or ()))
        self._loop.run()
        return found

    def advance(self, duration_us: int) -> None:
        """Let time pass."""
        self.clock.advance(duration_us)


def descriptor(
    *entries: str, hits: int | None = None, negative: bool = False, limit: tuple[int, int] | None = None
) -> Descriptor:
    """A descriptor of `key=value` entries; `limit`: requests and unit that it carries."""
    pairs = tuple((key.encode(), value.encode()) for key, _, value in (entry.partition("=") for entry in entries))
    return Descriptor(pairs, None if limit is None else Override(*limit), hits, negative)


def request(*descriptors: Descriptor | str, domain: str = "shop", hits: int = 0) -> Request:
    """A request; a text is a descriptor of one entry."""
    made = tuple(descriptor(each) if isinstance(each, str) else each for each in descriptors)
    return Request(domain.encode(), made, hits)


def text_of_status(status: Status) -> str:
    """A status as the vectors write it: `OK 5/SECOND left 4 reset 1`, `OVER_LIMIT 1/MINUTE/name left 0`."""
    words = ["OVER_LIMIT" if status.over else "OK"]
    if status.limit is not None:
        name = f"/{status.limit.name}" if status.limit.name else ""
        words.append(f"{status.limit.requests}/{status.limit.unit.name}{name}")
    if status.limit is not None or status.remaining:
        words.append(f"left {status.remaining}")
    if status.reset_s is not None:
        words.append(f"reset {status.reset_s}")
    return " ".join(words)


def texts_of(verdict: Verdict) -> list[str]:
    """All statuses of a verdict."""
    return [text_of_status(status) for status in verdict.statuses]


def settings_of(**fields: object) -> LimiterSettings:
    """Settings from fields of data files."""
    return msgspec.convert(fields, LimiterSettings)
