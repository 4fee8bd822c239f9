"""Bad input, each with the exact answer (DECISIONS 1, 2).

What Envoy's configuration got wrong is refused with the field's name; what a client can shape is limited.
"""

from __future__ import annotations

import pytest

from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.limiters import LimiterHarness, descriptor, request, texts_of
from support.snapshots import policy, snapshot_of

TWO_A_MINUTE = snapshot_of(
    policy(
        """
        - name: user
          match: [{key: user, type: Any}]
          limits: [{requests: 2, window: 1m, algorithm: FixedWindow}]
        """
    )
)
COMPAT = LimiterSettings(compat=True)
GOOD = encode_request(request("user=x"))
MANY_GROUPS = b"\x23" * 200 + b"\x24" * 200


def entry_of(value: bytes) -> Request:
    """A request of one entry with any bytes."""
    return Request(b"shop", (Descriptor(((b"user", value),)),))


@pytest.fixture(params=[LimiterSettings(), COMPAT], ids=["default", "compat"])
def harness(request: pytest.FixtureRequest) -> LimiterHarness:
    return LimiterHarness(TWO_A_MINUTE, request.param)


def _both(name: str, body: bytes | Request, default: GrpcError, compat: GrpcError) -> list[object]:
    raw = body if isinstance(body, bytes) else encode_request(body)
    return [
        pytest.param(raw, LimiterSettings(), default, id=f"{name}-default"),
        pytest.param(raw, COMPAT, compat, id=f"{name}-compat"),
    ]


def _worded(name: str, body: bytes | Request, message: str, compat: str | None = None) -> list[object]:
    """INVALID_ARGUMENT by default, UNKNOWN in compat mode."""
    return _both(
        name,
        body,
        GrpcError(GrpcCode.INVALID_ARGUMENT, message),
        GrpcError(GrpcCode.UNKNOWN, message if compat is None else compat),
    )


def _unit(number: int) -> list[object]:
    asked = request("user=x", descriptor("user=x", limit=(5, number)))
    message = f"descriptors[1].limit.unit: {number} is no unit, use SECOND (1) to WEEK (7)"
    return _worded(f"unit {number}", asked, message)


NO_DOMAIN = ("domain: must not be empty", "rate limit domain must not be empty")
NO_DESCRIPTORS = ("descriptors: must not be empty", "rate limit descriptor list must not be empty")
REFUSED = [
    *_worded("empty domain", request("user=x", domain=""), *NO_DOMAIN),
    *_worded("no descriptors", request(), *NO_DESCRIPTORS),
    *_worded("empty message", b"", *NO_DOMAIN),
    *_worded("257 descriptors", request(*["user=x"] * 257), "descriptors: 257, at most 256 are allowed"),
    *_worded("10,000 descriptors", request(*["user=x"] * 10_000), "descriptors: 10000, at most 256 are allowed"),
    *_unit(0),
    *_unit(8),
    *_unit(-1),
    *_worded("truncated", GOOD[:-1], "malformed message at byte 7: length past the end"),
    *_worded("length past the end", b"\x0a\xff\xff\xff\xff\x07", "malformed message at byte 1: length past the end"),
    *_worded("field of another type", b"\x08\x01", "malformed message at byte 1: field 1 with wire type 0"),
    *_worded("groups without end", MANY_GROUPS, "malformed message at byte 101: groups nested too deep"),
    *_worded("varint without end", b"\x18" + b"\xff" * 11, "malformed message at byte 1: varint longer than 10 bytes"),
]


@pytest.mark.parametrize(("body", "settings", "error"), REFUSED)
def test_what_configuration_got_wrong_is_refused_by_name(
    body: bytes, settings: LimiterSettings, error: GrpcError
) -> None:
    """Code and words are exact, the refusal is counted, and the next call is answered as ever."""
    harness = LimiterHarness(TWO_A_MINUTE, settings)

    assert harness.decide(body) == error
    assert harness.table.errors == {error.code: 1}
    assert not harness.ask(request("user=x")).over


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (LimiterSettings(), GrpcError(GrpcCode.UNAVAILABLE, "no configuration yet")),
        (COMPAT, GrpcError(GrpcCode.UNKNOWN, "no rate limit configuration loaded")),
    ],
    ids=["default", "compat"],
)
def test_without_configuration_a_good_request_is_unavailable(settings: LimiterSettings, error: GrpcError) -> None:
    """Until the first snapshot; then the same request is decided."""
    harness = LimiterHarness(None, settings)

    assert harness.refused(request("user=x")) == error
    harness.limiter.apply(TWO_A_MINUTE)
    assert not harness.ask(request("user=x")).over


def test_a_bad_request_is_told_before_the_want_of_configuration() -> None:
    """Whoever configures Envoy sees his own mistake first."""
    assert LimiterHarness(None).refused(request()).message == "descriptors: must not be empty"


def test_256_descriptors_are_decided(harness: LimiterHarness) -> None:
    """The last number that is taken; all of them count on one key."""
    verdict = harness.ask(request(*["user=x"] * 256))

    assert verdict.over
    assert len(verdict.statuses) == 256


@pytest.mark.parametrize(
    "value",
    [b"\xff\xfe", b"bo\xffb", b"", b"\x00", b"x" * 2**20, b"\xff" * 2**20],
    ids=["no UTF-8", "a stray byte", "empty", "NUL", "1 MiB", "1 MiB of no UTF-8"],
)
def test_any_bytes_are_limited_by_themselves(harness: LimiterHarness, value: bytes) -> None:
    """The third of one value is over; a value that differs in its last byte is not."""
    verdicts = [harness.ask(entry_of(value)).over for _ in range(3)]

    assert verdicts == [False, False, True]
    assert not harness.ask(entry_of(value + b"!")).over


def test_hits_that_never_fit_are_denied_and_not_counted() -> None:
    """2⁶⁴−1 hits: no reset time; the key's budget is untouched."""
    harness = LimiterHarness(TWO_A_MINUTE)
    verdict = harness.ask(request(descriptor("user=x", hits=2**64 - 1)))

    assert texts_of(verdict) == ["OVER_LIMIT 2/MINUTE/user left 0"]
    assert texts_of(harness.ask(request("user=x"))) == ["OK 2/MINUTE/user left 1 reset 40"]


def test_hits_that_never_fit_are_counted_in_compat_mode() -> None:
    """As upstream's INCRBY would; the sum does not wrap."""
    harness = LimiterHarness(TWO_A_MINUTE, COMPAT)
    verdicts = [harness.ask(request(descriptor("user=x", hits=2**64 - 1))) for _ in range(3)]

    assert [texts_of(verdict) for verdict in verdicts] == [["OVER_LIMIT 2/MINUTE/user left 0 reset 40"]] * 3
    assert harness.ask(request("user=x")).over


def test_an_override_without_a_unit_in_an_unknown_domain() -> None:
    """By default the mistake is told; upstream looks at overrides of known domains only."""
    asked = request(descriptor("user=x", limit=(5, 0)), domain="nobody")

    assert LimiterHarness(TWO_A_MINUTE).refused(asked).code is GrpcCode.INVALID_ARGUMENT
    assert texts_of(LimiterHarness(TWO_A_MINUTE, COMPAT).ask(asked)) == ["OK"]


def test_a_message_of_unknown_fields_alone_is_read(harness: LimiterHarness) -> None:
    """What a later Envoy may add changes nothing."""
    answer = harness.decide(GOOD + b"\xfa\x3e\x03abc")

    assert isinstance(answer, bytes)
    assert texts_of(decode_response(answer)) == ["OK 2/MINUTE/user left 1 reset 40"]
