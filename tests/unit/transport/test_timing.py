"""The decider that measures."""

from __future__ import annotations

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.transport.contract import Answer, Reply
from ratelimit_service.transport.timing import TimedDecider
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError

NOW = Instant(0, 0)


class StepClock:
    """Goes on by 3 µs with each reading."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 3_000
        return self.now_ns


class Scripted:
    """Answers what it is given: at once, or later when it is given None."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer
        self.replies: list[Reply] = []

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        self.replies.append(reply)
        return self.answer


def test_an_answer_at_once_is_measured_and_passed_on() -> None:
    """One observation, also for an error."""
    durations = Histogram((10,))
    error = GrpcError(GrpcCode.INVALID_ARGUMENT, "x")
    answer = TimedDecider(Scripted(error), durations, StepClock()).decide(b"", NOW, 0, lambda _: None)

    assert answer is error
    assert (durations.counts, durations.sum_us) == ([1, 0], 3)


def test_a_late_answer_is_measured_when_it_comes() -> None:
    """Nothing is counted before; the reply is passed on once."""
    durations, scripted = Histogram((10,)), Scripted(None)
    got: list[Answer] = []
    clock = StepClock()
    timed = TimedDecider(scripted, durations, clock)
    assert timed.decide(b"", NOW, 0, got.append) is None
    before = sum(durations.counts)
    clock.now_ns += 20_000
    scripted.replies[0](b"late")

    assert before == 0
    assert got == [b"late"]
    assert (durations.counts, durations.sum_us) == ([0, 1], 23)
