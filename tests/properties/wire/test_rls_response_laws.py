"""Laws of the response codec, with upb as oracle."""

from __future__ import annotations

import contextlib
import math

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.wire.protobuf import MalformedMessage
from ratelimit_service.wire.rls.client import decode_response
from ratelimit_service.wire.rls.encode import encode_response
from ratelimit_service.wire.rls.messages import CurrentLimit, Status, Unit, Verdict
from support.rls_messages import unknown_fields, verdicts


def _built_by_upb(verdict: Verdict) -> rls_pb2.RateLimitResponse:
    message = rls_pb2.RateLimitResponse(overall_code=1 + verdict.over)
    for status in verdict.statuses:
        added = message.statuses.add(code=1 + status.over, limit_remaining=status.remaining)
        if status.limit is not None:
            added.current_limit.SetInParent()
            added.current_limit.requests_per_unit = status.limit.requests
            added.current_limit.unit = int(status.limit.unit)
            added.current_limit.name = status.limit.name
        if status.reset_s is not None:
            added.duration_until_reset.SetInParent()
            added.duration_until_reset.seconds = status.reset_s
    for name, value in verdict.headers:
        message.response_headers_to_add.add(key=name, value=value)
    if verdict.metadata is not None:
        message.dynamic_metadata.SetInParent()
        message.dynamic_metadata.update(verdict.metadata)
    return message


@given(verdicts)
@example(Verdict(True, (Status(True, CurrentLimit(0, Unit.UNKNOWN), 0, 0),), (), {}))
@example(Verdict(False, (Status(False, None, 2**32 - 1),), (), {"a": [None, True, {"b": math.inf}]}))
def test_a_response_is_what_upb_would_have_written(verdict: Verdict) -> None:
    """Upb parses our bytes to the message that upb builds from the same values."""
    ours = rls_pb2.RateLimitResponse.FromString(encode_response(verdict))

    assert _built_by_upb(verdict) == ours


@given(verdicts)
def test_a_response_is_as_short_as_upbs(verdict: Verdict) -> None:
    """Defaults are left out and varints minimal, so lengths agree; fields come in the order of their numbers."""
    message = _built_by_upb(Verdict(verdict.over, verdict.statuses, verdict.headers))

    assert encode_response(Verdict(verdict.over, verdict.statuses, verdict.headers)) == message.SerializeToString()


@given(verdicts)
def test_a_client_reads_what_the_server_wrote(verdict: Verdict) -> None:
    """decode(encode(x)) = x, metadata aside."""
    plain = Verdict(verdict.over, verdict.statuses, verdict.headers)

    assert plain == decode_response(encode_response(verdict))


@given(verdicts, unknown_fields(9))
def test_a_client_skips_what_it_does_not_know(verdict: Verdict, unknown: bytes) -> None:
    """A response of a newer server is read as far as it is known."""
    plain = Verdict(verdict.over, verdict.statuses, verdict.headers)

    assert plain == decode_response(unknown + encode_response(verdict) + unknown)


@given(st.binary(max_size=30) | st.lists(st.sampled_from((8, 10, 18, 26, 34, 1, 2, 3, 4, 128)), max_size=16).map(bytes))
def test_a_client_refuses_garbage_by_our_error_alone(body: bytes) -> None:
    """Any bytes decode to a verdict or raise MalformedMessage."""
    with contextlib.suppress(MalformedMessage):
        assert isinstance(decode_response(body), Verdict)


@given(st.integers(-(2**40), 2**70), st.integers(-(2**40), 2**70))
@example(2**32, 315_576_000_001)
@example(-1, -1)
def test_numbers_saturate(count: int, reset_s: int) -> None:
    """What a field cannot carry becomes its nearest end, never a wrapped small number."""
    verdict = Verdict(False, (Status(False, CurrentLimit(count, Unit.DAY), count, reset_s),))
    status = rls_pb2.RateLimitResponse.FromString(encode_response(verdict)).statuses[0]

    assert status.limit_remaining == status.current_limit.requests_per_unit == min(max(count, 0), 2**32 - 1)
    assert status.duration_until_reset.seconds == min(max(reset_s, 0), 315_576_000_000)
    assert json_format.MessageToJson(status.duration_until_reset)
