"""The rules of RFC 9111 and RFC 9110 that response caching goes by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.integrations.http_caching import (
    RequestWish,
    StoredResponse,
    directives,
    etag_of,
    fresh_s,
    is_not_modified,
    value_of,
    varying,
    wish_of,
)


def heads(**named: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]


@pytest.mark.parametrize(
    ("response", "seconds"),
    [
        (heads(cache_control="max-age=60"), 60),
        (heads(cache_control="public, MAX-AGE=60"), 60),
        (heads(cache_control="max-age=60, s-maxage=10"), 10),
        (heads(cache_control='max-age="60"'), 60),
        (heads(cache_control="max-age=60, max-age=10"), 60),
        (heads(cache_control="max-age=60", age="50"), 10),
        (heads(cache_control="max-age=60", age="70"), 0),
        (heads(cache_control="max-age=ten"), 0),
        (heads(cache_control="max-age=-1"), 0),
        (heads(cache_control="max-age=99999999999"), 365 * 86_400),
        (heads(cache_control="max-age=60, private"), 0),
        (heads(cache_control="max-age=60, no-store"), 0),
        (heads(cache_control="max-age=60, no-cache"), 0),
        (heads(cache_control="max-age=60", vary="*"), 0),
        (heads(cache_control="max-age=60", vary="accept, *"), 0),
        (heads(cache_control="max-age=60", set_cookie="a=b"), 0),
        (heads(cache_control="public, max-age=60", set_cookie="a=b"), 60),
        (heads(cache_control="max-age=60", content_range="bytes 0-1/2"), 0),
        (heads(expires="Thu, 01 Jan 1970 00:01:00 GMT", date="Thu, 01 Jan 1970 00:00:00 GMT"), 60),
        (heads(expires="Thu, 01 Jan 1970 00:00:00 GMT", date="Thu, 01 Jan 1970 00:01:00 GMT"), 0),
        (heads(expires="0", date="Thu, 01 Jan 1970 00:01:00 GMT"), 0),
        (heads(expires="Thu, 01 Jan 1970 00:01:00 GMT"), 0),
        (heads(), 7),
        (heads(cache_control=", ,"), 7),
    ],
)
def test_how_long_a_response_may_be_kept_is_what_it_says(response: list[tuple[bytes, bytes]], seconds: int) -> None:
    """For everybody, so nothing that is private or has a cookie; what says nothing, for the default."""
    assert fresh_s(200, response, [], default_s=7) == seconds


@pytest.mark.parametrize(("status", "seconds"), [(200, 60), (404, 60), (301, 60), (206, 0), (302, 0), (500, 0)])
def test_statuses_that_are_not_final_or_whole_are_not_kept(status: int, seconds: int) -> None:
    """RFC 9110 §15.1; and no failure is served for a minute."""
    assert fresh_s(status, heads(cache_control="max-age=60"), [], default_s=0) == seconds


@pytest.mark.parametrize(("said", "seconds"), [("max-age=9", 0), ("public, max-age=9", 9), ("s-maxage=9", 9)])
def test_what_answers_a_login_is_kept_only_where_it_says_so(said: str, seconds: int) -> None:
    """RFC 9111 §3.5."""
    assert fresh_s(200, heads(cache_control=said), heads(authorization="Bearer x"), default_s=5) == seconds


@pytest.mark.parametrize(
    ("request_headers", "wish"),
    [
        (heads(), RequestWish()),
        (heads(pragma="no-cache"), RequestWish(reload=True)),
        (heads(cache_control="no-cache"), RequestWish(reload=True)),
        (heads(cache_control="max-age=0"), RequestWish(reload=True, max_age_s=0)),
        (heads(cache_control="max-age=5", pragma="no-cache"), RequestWish(max_age_s=5)),
        (heads(cache_control="no-store"), RequestWish(keep=False)),
        (heads(cache_control="only-if-cached"), RequestWish(only_if_cached=True)),
    ],
)
def test_what_a_request_wants_of_caches_is_read(request_headers: list[tuple[bytes, bytes]], wish: RequestWish) -> None:
    """Pragma counts only without Cache-Control."""
    assert wish_of(request_headers) == wish


@pytest.mark.parametrize(
    ("request_headers", "response", "same"),
    [
        (heads(if_none_match='"a"'), heads(etag='"a"'), True),
        (heads(if_none_match='W/"a"'), heads(etag='"a"'), True),
        (heads(if_none_match='"b", "a"'), heads(etag='W/"a"'), True),
        (heads(if_none_match='"b, c", "a"'), heads(etag='"c"'), False),
        (heads(if_none_match='"a,b"'), heads(etag='"a,b"'), True),
        (heads(if_none_match="*"), heads(etag='"a"'), True),
        (heads(if_none_match="*"), heads(), False),
        (heads(if_none_match='"b"', if_modified_since="Thu, 01 Jan 2099 00:00:00 GMT"), heads(etag='"a"'), False),
        (
            heads(if_modified_since="Thu, 01 Jan 1970 00:01:00 GMT"),
            heads(last_modified="Thu, 01 Jan 1970 00:01:00 GMT"),
            True,
        ),
        (
            heads(if_modified_since="Thu, 01 Jan 1970 00:01:00 GMT"),
            heads(last_modified="Thu, 01 Jan 1970 00:01:01 GMT"),
            False,
        ),
        (heads(if_modified_since="yesterday"), heads(last_modified="Thu, 01 Jan 1970 00:01:01 GMT"), False),
        (heads(if_modified_since="Thu, 01 Jan 1970 00:01:00 GMT"), heads(), False),
        (heads(), heads(etag='"a"'), False),
    ],
)
def test_a_client_that_has_it_is_told_so(
    request_headers: list[tuple[bytes, bytes]], response: list[tuple[bytes, bytes]], *, same: bool
) -> None:
    """Weak comparison; a tag decides before a date."""
    assert is_not_modified(request_headers, response) is same


def test_headers_that_come_twice_are_one_list() -> None:
    """RFC 9110 §5.3."""
    headers = [(b"vary", b"Accept"), (b"vary", b"X-Plan , accept")]

    assert value_of(headers, b"vary") == "Accept, X-Plan , accept"
    assert varying(headers, heads(accept="a")) == {"accept": "a", "x-plan": None}
    assert directives([(b"cache-control", b"a=1"), (b"cache-control", b"b")]) == {"a": "1", "b": ""}


def test_what_a_response_varies_by_decides_whom_it_suits() -> None:
    """A header that is missing is not one that is empty."""
    stored = StoredResponse(200, [], b"", 0.0, 0, 60, {"accept": "a", "x": None}, must_revalidate=True)

    assert stored.suits(heads(accept="a"))
    assert not stored.suits(heads(accept="b"))
    assert not stored.suits(heads(accept="a", x=""))
    assert (stored.may_serve(59.9), stored.may_serve(60.0)) == (True, False)
    assert stored.age_at(-5.0) == 0


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_tags_of_different_bodies_differ(first: bytes, second: bytes) -> None:
    """And those of one body are one."""
    assert (etag_of(first) == etag_of(second)) is (first == second)


@given(st.lists(st.tuples(st.sampled_from([b"cache-control", b"vary", b"age", b"expires", b"date"]), st.binary())))
def test_no_header_makes_the_rules_fail(headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever the bytes are, there is an answer, and it is no negative time."""
    assert fresh_s(200, headers, headers, default_s=1) >= 0
    wish_of(headers)
    is_not_modified(headers, headers)
