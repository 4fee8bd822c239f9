"""How old a server's memory is, as its boot value and its own clock tell."""

from __future__ import annotations

import pytest

from ratelimit_service.quota.redis.boot import ServerFacts, age_us

BEGAN_US = 1_700_000_000_000_000
BOOT = b"ab:cd:%d" % BEGAN_US


@pytest.mark.parametrize(
    ("boot", "wall_us", "age"),
    [
        (BOOT, BEGAN_US + 7, 7),
        (BOOT, BEGAN_US - 7, 0),
        (BOOT, 0, 0),
        (b"something", BEGAN_US, 0),
    ],
)
def test_age_is_by_the_servers_own_clock(boot: bytes, wall_us: int, age: int) -> None:
    """Where it is not told, or the clock was set back, the memory counts as new."""
    assert age_us(boot, ServerFacts(wall_us=wall_us)) == age
