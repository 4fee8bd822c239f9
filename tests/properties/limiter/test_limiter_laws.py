"""Laws of decisions, for any requests in any order over either store."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.wire.grpc.status import Answer, GrpcCode, GrpcError
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.decode import decode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request, Verdict
from support.limiter_laws import QUOTAS, SNAPSHOT, gaps_us, requests
from support.limiters import LimiterHarness, request
from support.rls_messages import wire_requests

calls = st.lists(st.tuples(requests(), gaps_us), max_size=12)
settings_of_services = st.builds(
    LimiterSettings,
    compat=st.booleans(),
    shadow_mode=st.booleans(),
    quota_mode=st.booleans(),
    response_headers=st.booleans(),
    response_dynamic_metadata=st.booleans(),
)


def answers_of(harness: LimiterHarness, schedule: Sequence[tuple[Request, int]]) -> list[Answer]:
    """What a limiter says, call by call."""
    answers = []
    for asked, gap_us in schedule:
        harness.advance(gap_us)
        answers.append(harness.decide(encode_request(asked)))
    return answers


@given(settings_of_services, calls)
def test_a_store_that_answers_later_answers_alike(
    settings: LimiterSettings, schedule: list[tuple[Request, int]]
) -> None:
    """Bytes are equal, and so is every counter."""
    at_once, later = (LimiterHarness(SNAPSHOT, settings, deferred=deferred) for deferred in (False, True))

    assert answers_of(later, schedule) == answers_of(at_once, schedule)
    names = [(entry.counters.domain, entry.counters.rule) for entry in at_once.table.entries]
    assert [later.counters(rule, domain) for domain, rule in names] == [
        at_once.counters(rule, domain) for domain, rule in names
    ]


def _is_over_by_law(asked: Request, verdict: Verdict, settings: LimiterSettings) -> bool:
    """The overall code, from the request and its statuses alone."""
    if settings.shadow_mode or asked.domain == b"nobody":
        return False
    quotas, others = [], []
    for descriptor, status in zip(asked.descriptors, verdict.statuses, strict=True):
        key = descriptor.entries[0][0]
        allowed = key == b"free" and descriptor.override is None
        is_quota = (settings.quota_mode and key != b"banned") or (
            asked.domain == b"quotas" and key in QUOTAS and descriptor.override is None
        )
        if is_quota and not allowed:
            quotas.append(status.over)
        elif not is_quota:
            others.append(status.over)
    return any(others) or (bool(quotas) and all(quotas))


@given(settings_of_services, calls)
def test_the_overall_code_follows_from_the_statuses(
    settings: LimiterSettings, schedule: list[tuple[Request, int]]
) -> None:
    """Over if a descriptor that is no quota is, or all quotas are; never in global shadow mode."""
    harness = LimiterHarness(SNAPSHOT, settings)
    for asked, gap_us in schedule:
        harness.advance(gap_us)
        verdict = harness.ask(asked)

        assert len(verdict.statuses) == len(asked.descriptors)
        assert verdict.over == _is_over_by_law(asked, verdict, settings)


def _counts(harness: LimiterHarness) -> dict[tuple[bytes, bytes], int]:
    """Hits counted by rules without penalties."""
    used = [usage for domain in ("shop", "quotas") for usage in harness.usage(domain)]
    return {(each.identity, each.key): each.used for each in used if each.used and b"penalty" not in each.identity}


def check_that_denied_requests_count_nothing(harness: LimiterHarness, schedule: list[tuple[Request, int]]) -> None:
    """The law: a denied request leaves every count as it was, but for penalties."""
    for asked, gap_us in schedule:
        harness.advance(gap_us)
        before = _counts(harness)
        if harness.ask(asked).over:
            assert _counts(harness) == before


charging = st.lists(st.tuples(requests(negative=False, overrides=False), gaps_us), max_size=12)


@pytest.mark.parametrize("deferred", [False, True])
@given(charging)
def test_a_denied_request_counts_nothing(deferred: bool, schedule: list[tuple[Request, int]]) -> None:
    """All charges of a request are counted or none is."""
    check_that_denied_requests_count_nothing(LimiterHarness(SNAPSHOT, deferred=deferred), schedule)


def test_counting_every_charge_is_seen() -> None:
    """Planted: upstream's way breaks the law."""
    schedule = [(request("never=a", "one=a", domain="quotas"), 0)]
    harness = LimiterHarness(SNAPSHOT, LimiterSettings(compat=True))
    with pytest.raises(AssertionError):
        check_that_denied_requests_count_nothing(harness, schedule)


@given(st.lists(st.tuples(st.integers(1, 3), gaps_us), max_size=20))
def test_no_window_admits_more_than_its_limit(schedule: list[tuple[int, int]]) -> None:
    """The whole way from bytes to bytes keeps the fixed window's law: at most 2 hits a second of `one`."""
    harness = LimiterHarness(SNAPSHOT)
    admitted: dict[int, int] = {}
    for hits, gap_us in schedule:
        harness.advance(gap_us)
        window = harness.clock.wall_us // 1_000_000
        admitted[window] = admitted.get(window, 0) + (0 if harness.ask(request("one=a", hits=hits)).over else hits)

    assert all(hits <= 2 for hits in admitted.values())


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good message, cut, with bytes changed, or with another behind it."""
    body = bytearray(encode_request(draw(requests())))
    for _ in range(draw(st.integers(0, 4))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))]) + draw(st.binary(max_size=6))


bodies = st.one_of(st.binary(max_size=60), spoilt(), wire_requests)


@pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])
@pytest.mark.parametrize("deferred", [False, True], ids=["at once", "later"])
@given(st.lists(bodies, min_size=1, max_size=6))
@example([b"\x0a\x04shop\x12\x00"])
@example([encode_request(Request(b"shop", (Descriptor(((b"one", b"a"),), None, 2**64 - 1, True),), 2**32 - 1))])
def test_any_bytes_get_an_answer(deferred: bool, compat: bool, messages: list[bytes]) -> None:
    """Nothing raises; an error is INVALID_ARGUMENT (compat: UNKNOWN); a verdict has a status for each descriptor."""
    harness = LimiterHarness(SNAPSHOT, LimiterSettings(compat=compat), deferred=deferred)
    for body in messages:
        for _ in range(3):  # planned, remembered, recalled
            answer = harness.decide(body)
            if isinstance(answer, GrpcError):
                assert answer.code is (GrpcCode.UNKNOWN if compat else GrpcCode.INVALID_ARGUMENT)
                assert answer.message
            else:
                assert len(decode_response(answer).statuses) == len(decode_request(body).descriptors)
    assert not harness.ask(request("one=after", domain="quotas")).over
