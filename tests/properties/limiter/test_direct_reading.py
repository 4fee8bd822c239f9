"""Reading request bytes straight to rules and keys gives what the long way gives, or nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.limiter.direct import Met, read_plain
from ratelimit_service.limiter.several import plan_directly
from ratelimit_service.policy.identity import counter_key
from ratelimit_service.policy.match import match
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.decode import MalformedRequest, decode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.limiter_laws import SNAPSHOT, requests
from support.limiters import LimiterHarness, request
from support.snapshots import policy, snapshot_of

DOMAINS = snapshot_of(
    policy("""\
- {name: any, match: [{key: a, type: Any}], limits: [{requests: 5, window: 1s}]}
- {name: deep, match: [{key: a, value: x}, {key: b, type: Any}], limits: [{requests: 5, window: 1s}]}
- {name: begins, match: [{key: b, type: Prefix, value: v}], limits: [{requests: 5, window: 1s}]}
""")
).domains
texts = st.sampled_from((b"", b"a", b"b", b"x", b"vv", b"\xff", b"v" * 127, b"v" * 128))
entries = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
descriptors = st.builds(Descriptor, entries, hits=st.sampled_from((None, None, None, 0, 2)))
plain_requests = st.builds(
    Request,
    st.sampled_from((b"shop", b"shop", b"shop", b"", b"other")),
    st.lists(descriptors, max_size=9).map(tuple),
    st.sampled_from((0, 0, 0, 3)),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Good requests, and the same with a byte changed, cut off or added."""
    body = encode_request(draw(plain_requests))
    if not body or draw(st.booleans()):
        return body
    at, byte = draw(st.integers(0, len(body) - 1)), draw(st.sampled_from((0, 1, 2, 0x0A, 0x12, 0x18, 0x7F, 0x80, 0xFF)))
    return draw(
        st.sampled_from((body[:at], body + bytes((byte,)), body[:at] + bytes((byte,)) + body[at + 1 :], body[at:]))
    )


def check(read: Callable[..., list[Met] | None], body: bytes) -> None:
    """What is read directly is what is decoded, matched and made a key of."""
    met = read(body, DOMAINS)
    if met is None:
        return
    asked = decode_request(body)
    domain = DOMAINS[asked.domain]
    long_way = [
        (match(domain, each.entries), counter_key([value for _, value in each.entries])) for each in asked.descriptors
    ]
    assert met == long_way
    assert asked.hits_addend == 0
    assert all(each.hits is None and each.override is None and not each.is_negative for each in asked.descriptors)


@given(bodies())
@example(encode_request(Request(b"shop", (Descriptor(((b"a", b"x"), (b"b", b"y"))),))))
@example(encode_request(Request(b"shop", (Descriptor(((b"b", b"v" * 116),)),))))
def test_what_is_read_directly_is_what_is_decoded(body: bytes) -> None:
    """Whatever bytes come, malformed ones included, which are never read directly."""
    check(read_plain, body)


def test_usual_requests_are_read_directly() -> None:
    """A few descriptors of short entries; anything else is left to the long way."""
    asked = Request(b"shop", (Descriptor(((b"a", b"x"), (b"b", b"y"))), Descriptor(((b"a", b"z"),))))
    met = read_plain(encode_request(asked), DOMAINS)

    assert met is not None
    assert [(rule.name.rpartition("/")[2], key) for rule, key in met] == [("deep", b"\x01x\x01y"), ("any", b"\x01z")]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x0a\x04shop\x12\x85\x01\x0a\x82\x01\x0a\x01b\x12\x7d" + b"v" * 125, id="long lengths"),
        pytest.param(b"\x0a\x04shop\x12\x0a\x0a\x08\x0a\x01a\x12\x01yzz", id="bytes behind a value"),
        pytest.param(b"\x0a\x04shop\x12\x08\x0a\x06\x0a\x01a\x1a\x01y", id="an unknown field for a value"),
        pytest.param(b"\x0a\x04shop\x12\x08\x0a\x06\x0a\x01a\x12", id="cut short"),
    ],
)
def test_what_looks_nearly_usual_is_left_to_the_long_way(body: bytes) -> None:
    """Each of these would be read wrongly without a check of its own."""
    assert read_plain(body, DOMAINS) is None


def test_a_planted_reader_is_seen() -> None:
    """One that does not look where a value ends reads on into what stands behind it."""

    def careless(body: bytes, domains: object) -> list[Met] | None:
        return read_plain(body.replace(b"\x01yzz", b"\x03yzz"), DOMAINS)

    body = b"\x0a\x04shop\x12\x0a\x0a\x08\x0a\x01a\x12\x01yzz"
    check(read_plain, body)
    with pytest.raises((AssertionError, MalformedRequest)):
        check(careless, body)


@given(requests())
def test_the_plan_of_bytes_is_the_plan_of_the_request(asked: Request) -> None:
    """Once its rules were met, a request is planned from its bytes as it is from what they decode to."""
    harness = LimiterHarness(SNAPSHOT)
    body = encode_request(asked)
    first, second = harness.limiter._resolve(body), harness.limiter._resolve(body)

    assert type(first) is type(second)
    assert getattr(first, "charges", first) == getattr(second, "charges", second)


@pytest.mark.parametrize("key", ["one", "two"])
def test_a_request_is_planned_from_its_bytes_once_its_rule_was_met(key: str) -> None:
    """The short way is taken at all, for one limit and for several."""
    limiter = LimiterHarness(SNAPSHOT).limiter
    body = encode_request(request(f"{key}=b"))
    plan = functools.partial(plan_directly, limiter._recipes, limiter._forms, body, SNAPSHOT.domains)

    assert plan() is None
    limiter._resolve(encode_request(request(f"{key}=a")))
    assert plan() is not None
