"""Our JSON against protobuf's own `json_format`."""

from __future__ import annotations

import contextlib
import json

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.wire.rls.messages import CurrentLimit, Descriptor, Override, Request, Status, Unit, Verdict
from ratelimit_service.wire.rls.protojson import MalformedJson, decode_request_json, encode_verdict_json

edges_32 = st.sampled_from([0, 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
edges_64 = st.sampled_from([0, 1, 2**53 + 1, 2**64 - 1]) | st.integers(0, 2**64 - 1)
texts = st.text(max_size=8)
units = st.sampled_from([unit for unit in Unit if unit is not Unit.WEEK]) | st.integers(8, 2**31 - 1)


@st.composite
def messages(draw):
    message = rls_pb2.RateLimitRequest(domain=draw(texts), hits_addend=draw(edges_32))
    for _ in range(draw(st.integers(0, 3))):
        descriptor = message.descriptors.add()
        for _ in range(draw(st.integers(0, 2))):
            descriptor.entries.add(key=draw(texts), value=draw(texts))
        if draw(st.booleans()):
            descriptor.limit.requests_per_unit = draw(edges_32)
            descriptor.limit.unit = int(draw(units))
        if draw(st.booleans()):
            descriptor.hits_addend.value = draw(edges_64)
    return message


def plain(message):
    """A protobuf message as our value."""
    return Request(
        domain=message.domain.encode(),
        descriptors=tuple(
            Descriptor(
                entries=tuple((entry.key.encode(), entry.value.encode()) for entry in item.entries),
                override=Override(item.limit.requests_per_unit, item.limit.unit) if item.HasField("limit") else None,
                hits=item.hits_addend.value if item.HasField("hits_addend") else None,
            )
            for item in message.descriptors
        ),
        hits_addend=message.hits_addend,
    )


@given(messages(), st.booleans(), st.booleans(), st.booleans())
def test_we_read_what_protobuf_writes(message, snake_case, numbers, defaults):
    """In both spellings, enums by name and number, with and without defaults."""
    text = json_format.MessageToJson(
        message,
        preserving_proto_field_name=snake_case,
        use_integers_for_enums=numbers,
        always_print_fields_with_no_presence=defaults,
    )

    assert decode_request_json(text.encode()) == plain(message)


scalars = st.none() | st.booleans() | edges_64 | st.sampled_from(["", "a", "1", "-1", "1.0", "DAY", 0.5, -1, 1e2])
names = st.sampled_from(
    [
        "domain",
        "descriptors",
        "hitsAddend",
        "hits_addend",
        "entries",
        "key",
        "value",
        "limit",
        "unit",
        "requestsPerUnit",
        "x",
    ]
)
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3))


@given(st.dictionaries(names, trees, max_size=3))
@example({"descriptors": [{"limit": {"unit": 3}}]})
@example({"hitsAddend": "1.0"})
def test_we_accept_nothing_that_protobuf_refuses(tree):
    """And read the same where both accept."""
    text = json.dumps(tree)
    with contextlib.suppress(MalformedJson):
        ours = decode_request_json(text.encode())

        assert ours == plain(json_format.Parse(text, rls_pb2.RateLimitRequest()))


@given(st.binary(max_size=64) | st.text(st.sampled_from('{}[]":,\\u d1e.-'), max_size=40).map(str.encode))
def test_any_bytes_raise_only_our_error(body):
    """Nothing else escapes."""
    with contextlib.suppress(MalformedJson):
        decode_request_json(body)


limits = st.builds(CurrentLimit, edges_32, st.sampled_from(Unit), texts)
statuses = st.builds(Status, st.booleans(), st.none() | limits, edges_32, st.none() | st.integers(0, 315_576_000_000))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
verdicts = st.builds(
    Verdict,
    st.booleans(),
    st.lists(statuses, max_size=3).map(tuple),
    st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    st.none() | st.dictionaries(texts, values, max_size=3),
)


@given(verdicts)
def test_protobuf_reads_what_we_write_and_would_write_the_same(verdict):
    """Field by field, defaults left out alike."""
    ours = json.loads(encode_verdict_json(verdict))
    message = json_format.ParseDict(ours, rls_pb2.RateLimitResponse())
    theirs = json_format.MessageToDict(message)

    assert ours == theirs
    assert len(message.statuses) == len(verdict.statuses)
    assert [status.limit_remaining for status in message.statuses] == [status.remaining for status in verdict.statuses]
    assert [h.value for h in message.response_headers_to_add] == [value for _, value in verdict.headers]


def test_the_law_catches_a_planted_bug():
    """A writer that prints a default, or a number as text, differs from protobuf's."""
    planted = [{"overallCode": "OK", "statuses": [{"code": "OK", "limitRemaining": value}]} for value in (0, "5")]

    assert [
        tree == json_format.MessageToDict(json_format.ParseDict(tree, rls_pb2.RateLimitResponse())) for tree in planted
    ] == [
        False,
        False,
    ]
