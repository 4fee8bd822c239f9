"""Laws of counter identities: different values never share a counter, and edits of numbers keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, Limit
from ratelimit_service.policy.identity import counter_key, limit_id, shown_values, stable_percent

# Bytes that are lengths, marks and separators in some encoding, and values around the longest plain one.
_tricky = st.sampled_from([b"", b"_", b"a", b"a_b", b"\x01", b"\x00", b"\xff", b"\x01a", b"\xff" * 17])
_long = st.integers(126, 131).map(lambda length: b"a" * length)
values = st.lists(st.one_of(_tricky, _long), max_size=3)
names = st.text(alphabet="a_.\x00/", max_size=3)
windows = st.sampled_from([1_000_000, 60_000_000])
calendars = st.builds(Calendar, st.sampled_from(CalendarUnit), st.sampled_from(["UTC", "Europe/Zurich"]))


def _window_limit(algorithm: Algorithm, window_us: int, requests: int) -> Limit:
    return Limit(algorithm, requests, window_us, requests)


def _calendar_limit(calendar: Calendar, requests: int) -> Limit:
    return Limit(Algorithm.FIXED_WINDOW, requests, 0, requests, calendar)


limits = st.one_of(
    st.builds(_window_limit, st.sampled_from(Algorithm), windows, st.integers(1, 3)),
    st.builds(_calendar_limit, calendars, st.integers(1, 3)),
)


def _is_injective(key_of: Callable[[Sequence[bytes]], bytes], one: Sequence[bytes], other: Sequence[bytes]) -> bool:
    return (key_of(one) == key_of(other)) == (list(one) == list(other))


@given(values, values)
@example([b"a", b"b_c"], [b"a_b", b"c"])
@example([b"a"], [b"a", b""])
def test_different_values_never_share_a_key(one: list[bytes], other: list[bytes]) -> None:
    """Two lists of values have one key exactly when they are equal."""
    assert _is_injective(counter_key, one, other)


@pytest.mark.parametrize(
    ("key_of", "one", "other"),
    [
        (b"_".join, [b"a", b"b_c"], [b"a_b", b"c"]),
        (b"".join, [b"a"], [b"a", b""]),
        (lambda parts: b"".join(bytes((len(part) % 2,)) + part for part in parts), [b"a\x01b"], [b"a", b"b"]),
    ],
    ids=["joined by underscores", "joined by nothing", "length cut short"],
)
def test_the_law_rejects_ambiguous_encodings(
    key_of: Callable[[Sequence[bytes]], bytes], one: list[bytes], other: list[bytes]
) -> None:
    """Planted: encodings whose fields run into one another are caught."""
    assert not _is_injective(key_of, one, other)


@given(st.binary(min_size=129, max_size=140), st.binary(max_size=128))
def test_a_digest_never_looks_like_a_plain_value(long: bytes, short: bytes) -> None:
    """A long value's key is no short value's key, even of the very bytes of its digest."""
    digest_key = counter_key([long])

    assert len(digest_key) == 17
    assert digest_key not in (counter_key([short]), counter_key([digest_key[1:]]), counter_key([digest_key]))


def test_values_of_128_bytes_are_kept_and_longer_ones_hashed() -> None:
    """The boundary is between 128 and 129 bytes."""
    assert counter_key([b"a" * 128]) == b"\x80" + b"a" * 128
    assert len(counter_key([b"a" * 129])) == 17


named_limits = st.tuples(names, names, limits)


@given(named_limits, named_limits)
@example(
    ("a", "", _window_limit(Algorithm.FIXED_WINDOW, 1, 1)),
    ("", "a", _window_limit(Algorithm.FIXED_WINDOW, 1, 1)),
)
def test_identities_differ_unless_domain_rule_law_and_window_are_equal(
    one: tuple[str, str, Limit], other: tuple[str, str, Limit]
) -> None:
    """An identity is exactly (domain, rule, algorithm, window or calendar)."""
    assert (limit_id(*one) == limit_id(*other)) == (_parts_of(one) == _parts_of(other))


def _parts_of(named: tuple[str, str, Limit]) -> tuple[object, ...]:
    domain, rule, limit = named
    return domain, rule, limit.algorithm, limit.window_us, limit.calendar


def test_requests_and_burst_are_not_in_the_identity() -> None:
    """A changed number goes on with the count."""
    before = Limit(Algorithm.TOKEN_BUCKET, 5, 1_000_000, 5)
    after = Limit(Algorithm.TOKEN_BUCKET, 6, 1_000_000, 50)

    assert limit_id("d", "r", before) == limit_id("d", "r", after)


def test_names_that_are_no_text_have_an_identity() -> None:
    """A lone surrogate, which bytes that are no UTF-8 may have become, does not raise."""
    limit = _window_limit(Algorithm.FIXED_WINDOW, 1_000_000, 1)

    assert limit_id("d\udcff", "r", limit) != limit_id("d", "r", limit)


@given(st.binary(max_size=20))
def test_a_rollout_percent_is_0_to_99(key: bytes) -> None:
    """Percent 100 takes every key and percent 0 none."""
    assert 0 <= stable_percent(key) <= 99


def test_a_rollout_takes_its_share_of_the_keys() -> None:
    """Of 20,000 keys, 10 percent are under 10, within five standard deviations."""
    under = sum(stable_percent(b"key-%d" % number) < 10 for number in range(20_000))

    assert under == pytest.approx(2_000, abs=212)


def test_a_rollout_places_a_key_alike_on_every_release() -> None:
    """Pinned: a key must not change sides because the service was upgraded."""
    assert [stable_percent(key) for key in (b"", b"a", b"user-1")] == [22, 16, 35]


@given(st.lists(st.text(max_size=3), max_size=3))
@example(["", "é" * 64, "a"])
def test_a_key_shows_the_values_that_it_was_made_of(texts: list[str]) -> None:
    """One text a value, in order."""
    assert shown_values(counter_key([text.encode() for text in texts])) == texts


@given(st.binary(max_size=4))
@example(b"\x81" + b"a" * 200)
@example(b"\x05a")
@example(b"\xffa")
def test_any_bytes_show_as_something(key: bytes) -> None:
    """A key of another form is one value, and nothing raises."""
    assert all(isinstance(text, str) for text in shown_values(key))


def test_values_that_are_no_text_show_as_escapes_and_digests() -> None:
    """What a reader can tell apart, in the form of the documentation."""
    assert shown_values(counter_key([b"bo\xffb", b"a" * 129]))[0] == "bo\\xffb"
    assert shown_values(counter_key([b"a" * 129]))[0].startswith("blake2b:")
    assert shown_values(b"shop_user_bob_60") == ["shop_user_bob_60"]
