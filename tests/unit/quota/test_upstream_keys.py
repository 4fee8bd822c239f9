"""Keys of the compat store, byte for byte those of envoyproxy/ratelimit (src/limiter/cache_key.go and its tests)."""

from __future__ import annotations

import pytest

from ratelimit_service.quota.upstream import upstream_key, upstream_stem

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 3_600 * SECOND_US
DAY_US = 86_400 * SECOND_US

KEY = [(b"key", b"value")]
TWO = [(b"key2", b"value2"), (b"subkey2", b"subvalue2")]


@pytest.mark.parametrize(
    ("entries", "window_us", "now_s", "expected"),
    [
        (KEY, SECOND_US, 1234, b"domain_key_value_1234"),
        (TWO, MINUTE_US, 1234, b"domain_key2_value2_subkey2_subvalue2_1200"),
        (KEY, HOUR_US, 1_000_000, b"domain_key_value_997200"),
        (KEY, DAY_US, 1_000_000, b"domain_key_value_950400"),
        (KEY, 7 * DAY_US, 1_000_000, b"domain_key_value_604800"),
        (KEY, 30 * DAY_US, 2_592_000, b"domain_key_value_2592000"),
        (KEY, 365 * DAY_US, 31_535_999, b"domain_key_value_0"),
        ([(b"files", b"files/*")], SECOND_US, 1234, b"domain_files_files/*_1234"),
        ([], SECOND_US, 1234, b"domain_1234"),
    ],
)
def test_key_is_stem_and_window_start(
    entries: list[tuple[bytes, bytes]], window_us: int, now_s: int, expected: bytes
) -> None:
    """A key is the domain, each entry's key and value, and the start of the window in seconds."""
    stem = upstream_stem(b"domain", entries)

    assert upstream_key(b"", stem, window_us, now_s * SECOND_US) == expected


def test_prefix_stands_before_the_domain() -> None:
    """The configured prefix begins the key."""
    assert upstream_key(b"prefix:", upstream_stem(b"domain", KEY), SECOND_US, 1234 * SECOND_US) == (
        b"prefix:domain_key_value_1234"
    )


def test_microseconds_within_a_second_do_not_show() -> None:
    """Windows are counted in whole seconds."""
    stem = upstream_stem(b"domain", KEY)

    assert upstream_key(b"", stem, SECOND_US, 1_234_999_999) == b"domain_key_value_1234"
